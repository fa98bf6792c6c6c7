"""Tests of labs/augmentation."""

import json
import sys

import pytest
import torch

import labs.augmentation.__main__ as lab


@pytest.mark.parametrize("name", lab.WAYS)
def test_a_batch_is_varied_picture_by_picture_by_the_generator_alone(name):
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).repeat(20, 1, 1, 1)
    vary = lab.WAYS[name]
    once, again, other = (vary(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert once.shape == images.shape
    assert 0 <= once.min() and once.max() <= 1
    assert len(once.unique(dim=0)) > 1
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_a_mirrored_picture_is_the_picture_or_its_mirror_image():
    images = torch.rand(1, 3, 8, 8).repeat(50, 1, 1, 1)
    flipped = lab.flip(images, torch.Generator().manual_seed(0))
    mirrored = (flipped != images).flatten(1).any(dim=1)
    assert 10 < mirrored.sum() < 40
    assert torch.equal(flipped[mirrored], images[mirrored].flip(3))


def test_a_turned_picture_keeps_its_middle():
    images = torch.zeros(30, 1, 21, 21)
    images[:, :, 8:13, 8:13] = 1
    assert torch.allclose(lab.rotate(images, torch.Generator().manual_seed(0))[:, 0, 10, 10], torch.ones(30))


def run(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["augmentation", *arguments])
    monkeypatch.setattr(lab, "SIZES", (32,))
    monkeypatch.setattr(lab, "BATCH", 4)
    monkeypatch.setattr(lab.torch, "set_num_threads", lambda count: None)
    lab.main()


def test_it_measures_every_way_and_keeps_the_milliseconds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lab, "RESULTS", tmp_path)
    run(monkeypatch)
    table = json.loads((tmp_path / "labs" / "augmentation.json").read_text())["32"]
    assert set(table) == set(lab.WAYS)
    assert all(value > 0 for way in table.values() for value in way.values())
    assert len(capsys.readouterr().out.splitlines()) == len(lab.WAYS)


def test_quick_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(lab, "RESULTS", tmp_path)
    run(monkeypatch, "--quick")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_one_error(tmp_path, monkeypatch):
    (tmp_path / "labs").touch()
    monkeypatch.setattr(lab, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match="^error: "):
        run(monkeypatch)
