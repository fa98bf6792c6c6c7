"""Tests of labs/augmentation."""

import csv
import sys

import pytest
import torch

import labs.augmentation.__main__ as lab


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", set(lab.WAYS) - {"centre crop"})
def test_a_batch_is_varied_picture_by_picture_by_the_generator_alone(name):
    images = torch.rand(1, 3, 16, 24, generator=seeded(0)).repeat(20, 1, 1, 1)
    vary = lab.WAYS[name]
    once, again, other = (vary(images, seeded(seed)) for seed in (1, 1, 2))
    assert once.shape == images.shape
    assert 0 <= once.min() and once.max() <= 1
    assert len(once.unique(dim=0)) > 1
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


@pytest.mark.parametrize("name", lab.WAYS)
def test_a_picture_is_not_changed_in_place(name):
    images = torch.rand(4, 3, 16, 16, generator=seeded(0))
    before = images.clone()
    lab.WAYS[name](images, seeded(1))
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", lab.WAYS)
def test_gradients_pass_through_every_way(name):
    images = (0.25 + torch.rand(4, 3, 16, 16, generator=seeded(0)) / 2).requires_grad_()
    lab.WAYS[name](images, seeded(1)).square().sum().backward()
    assert images.grad.isfinite().all()
    assert (images.grad != 0).flatten(1).any(dim=1).all()


def test_gradients_pass_through_torchvisions_ways_too_if_they_are_given_tensors():
    from torchvision import transforms

    ways = (transforms.RandomAffine(30), transforms.RandomPerspective(p=1), transforms.RandomErasing(p=1))
    images = torch.rand(4, 3, 16, 16, requires_grad=True)
    assert all(vary(images).requires_grad for vary in ways)


@pytest.mark.parametrize(("vary", "side"), [(lab.flip, 3), (lab.flip_upside_down, 2)])
def test_a_flipped_picture_is_the_picture_or_its_mirror_image(vary, side):
    images = torch.rand(1, 3, 8, 8).repeat(50, 1, 1, 1)
    flipped = vary(images, seeded(0))
    mirrored = (flipped != images).flatten(1).any(dim=1)
    assert 10 < mirrored.sum() < 40
    assert torch.equal(flipped[mirrored], images[mirrored].flip(side))


def test_a_turned_picture_keeps_its_middle():
    images = torch.zeros(30, 1, 21, 21)
    images[:, :, 8:13, 8:13] = 1
    assert torch.allclose(lab.rotate(images, seeded(0))[:, 0, 10, 10], torch.ones(30))


def test_a_turn_is_one_in_pixels_also_where_the_picture_is_no_square(monkeypatch):
    monkeypatch.setattr(lab, "uniform", lambda images, *_: torch.full((len(images),), 90.0))
    images = torch.zeros(1, 1, 11, 21)
    images[:, :, 5, 7:14] = 1  # a line of seven pixels lies, and then stands
    turned = lab.rotate(images, seeded(0))
    assert turned[0, 0, 2:9, 10] == pytest.approx(1, abs=1e-4)
    assert turned.sum() == pytest.approx(7, abs=1e-3)


def test_a_perspective_moves_the_corners_to_where_they_were_drawn(monkeypatch):
    inwards = torch.tensor([[[0.5, 0.6], [0.7, 0.8], [0.9, 1], [0.6, 0.9]]])
    monkeypatch.setattr(lab, "uniform", lambda *_: inwards)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 401), torch.linspace(-1, 1, 401), indexing="ij")
    images = torch.stack([columns, rows])[None]  # each pixel says where it is
    seen = lab.perspective(images, seeded(0))[0]
    for corner, (x, y) in zip(((-1, -1), (1, -1), (1, 1), (-1, 1)), inwards[0].tolist(), strict=True):
        x, y = 0.98 * x * corner[0], 0.98 * y * corner[1]  # a little inside: there is nothing beyond
        assert seen[:, round(200 * (1 + y)), round(200 * (1 + x))].tolist() == pytest.approx(corner, abs=0.06)


def test_a_crop_is_a_window_of_the_framed_picture():
    images = torch.rand(1, 1, 16, 16)
    framed = torch.nn.functional.pad(images, (2, 2, 2, 2))
    windows = framed.unfold(2, 16, 1).unfold(3, 16, 1).reshape(-1, 256)
    assert (windows == lab.crop(images, seeded(0)).flatten()).all(dim=1).any()


def test_an_erased_box_has_the_area_that_it_may_have():
    erased = lab.erase(torch.ones(200, 1, 100, 100), seeded(0)) == 0
    areas = erased.flatten(1).float().mean(dim=1)
    assert 0.015 < areas.min() and areas.max() < 0.34


def test_a_twentieth_of_the_pixels_is_salt_or_pepper():
    noisy = lab.salt_and_pepper(torch.full((10, 3, 100, 100), 0.5), seeded(0))
    assert (noisy == 0).float().mean() == pytest.approx(0.025, abs=0.002)
    assert (noisy == 1).float().mean() == pytest.approx(0.025, abs=0.002)


def test_every_way_of_torchvision_and_kornia_has_one_of_ours():
    assert len(lab.torchvisions(32)) == 11
    assert set(lab.torchvisions(32)) <= set(lab.WAYS)


def test_kornia_makes_as_large_pictures_as_ours():
    pytest.importorskip("kornia", reason="no Kornia: pip install -r labs/requirements-test.txt")
    images = torch.rand(2, 3, 32, 32)
    for name, vary in lab.kornias(32).items():
        assert vary(images).shape == lab.WAYS[name](images, seeded(0)).shape


def run(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["augmentation", *arguments])
    monkeypatch.setattr(lab, "SIZES", (32,))
    monkeypatch.setattr(lab, "BATCHES", (2, 4))
    monkeypatch.setattr(lab, "ROUNDS", 2)
    monkeypatch.setattr(lab.torch, "set_num_threads", lambda count: None)
    lab.main()


def test_it_draws_and_measures_every_way(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lab, "RESULTS", tmp_path)
    monkeypatch.setattr(lab, "SHEET", tmp_path / "ways.jpg")
    monkeypatch.setattr(lab, "kornias", lambda size: dict.fromkeys(lab.torchvisions(size), torch.clone))
    run(monkeypatch)
    rows = list(csv.DictReader((tmp_path / "labs" / "augmentation.csv").open()))
    assert [row["way"] for row in rows] == list(lab.torchvisions(32))
    assert all(float(row["torchvision"]) > 0 and float(row["kornia_4"]) > 0 for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == len(rows)
    assert (tmp_path / "ways.jpg").exists()


def test_without_kornia_the_table_that_has_its_columns_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lab, "RESULTS", tmp_path)
    monkeypatch.setattr(lab, "SHEET", tmp_path / "ways.jpg")
    monkeypatch.setattr(lab, "kornias", lambda size: {})
    run(monkeypatch)
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out.endswith("Kornia is not installed (pip install kornia): nothing is written\n")


def test_quick_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(lab, "RESULTS", tmp_path)
    monkeypatch.setattr(lab, "SHEET", tmp_path / "ways.jpg")
    run(monkeypatch, "--quick")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_one_error(tmp_path, monkeypatch):
    (tmp_path / "labs").touch()
    monkeypatch.setattr(lab, "RESULTS", tmp_path)
    monkeypatch.setattr(lab, "kornias", lambda size: dict.fromkeys(lab.torchvisions(size), torch.clone))
    monkeypatch.setattr(lab, "SHEET", tmp_path / "ways.jpg")
    with pytest.raises(SystemExit, match="^error: "):
        run(monkeypatch)
