"""What labs/first_steps says of PyTorch is what PyTorch does, and what its text shows is what it prints."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import labs.first_steps.__main__ as lab
from labs.digit_strips.strips import CNN
from training import ROOT

DATA = ROOT / "data"


@pytest.fixture
def labels():
    return np.random.default_rng(0).integers(0, 10, 400)


def test_a_batch_has_one_of_each_digit_in_a_new_order_every_time(labels):
    dataset = lab.Digits(np.arange(400, dtype=np.float32), labels)
    sampler = lab.OneOfEach(labels, torch.Generator().manual_seed(0))
    loader = DataLoader(dataset, batch_size=10, sampler=sampler)
    first, second = ([(images.tolist(), targets.tolist()) for images, targets in loader] for _ in range(2))
    assert all(sorted(targets) == list(range(10)) for _, targets in first)
    assert len(first) == len(sampler) // 10 == np.bincount(labels).min()
    assert first != second


def test_no_sample_is_given_twice(labels):
    numbers = list(lab.OneOfEach(labels, torch.Generator().manual_seed(0)))
    assert len(set(numbers)) == len(numbers)


def test_image_and_label_have_a_transform_each():
    dataset = lab.Digits(np.zeros((2, 28, 28), dtype=np.uint8), np.array([3, 1]), lambda image: image + 1, lab.one_hot)
    image, label = dataset[0]
    assert len(dataset) == 2 and image.min() == 1
    assert label.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]


def test_the_network_is_that_of_the_strips():
    ours, theirs = lab.strips_network(), CNN()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.rand(3, 1, 28, 28)
    assert torch.equal(ours(images), theirs(images))


@pytest.mark.skipif(not (DATA / "MNIST").exists(), reason="no data/MNIST")
def test_the_command_prints_what_the_text_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lab, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["first_steps", "--quick", "--data", str(DATA), "--device", "cpu"])
    lab.main()
    printed = capsys.readouterr().out
    shown = re.findall(r"```text\n(.*?)```", (Path(lab.__file__).parent / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(shown) > 4
    assert not [line for block in shown for line in block.splitlines() if line not in printed.splitlines()]
    assert re.search(r"after one epoch: loss [\d.]+, [\d.]+% of the test digits", printed)
    assert not list(tmp_path.iterdir())


def test_without_mnist_the_command_ends_with_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(lab, "load_mnist", lambda *_: (_ for _ in ()).throw(ValueError("MNIST is missing")))
    monkeypatch.setattr(sys, "argv", ["first_steps", "--data", str(tmp_path)])
    with pytest.raises(SystemExit, match="^error: MNIST is missing$"):
        lab.main()
