"""Tests of labs/weaknesses."""

import argparse
import sys

import numpy as np
import pytest
import torch
from test_cats_dogs import make_pictures

import labs.weaknesses.__main__ as lab
from labs import weights
from labs.cats_dogs.scores import save_network
from labs.cifar10.networks import CifarCNN, Standardized
from labs.resnet import small
from labs.weaknesses.backgrounds import BACKGROUNDS, cut_out
from training import save_weights

CPU = torch.device("cpu")


def brightness(pictures):
    """Scores of two classes, dark and bright."""
    mean = pictures.mean(dim=(1, 2, 3))
    return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def test_a_step_turns_those_answers_that_were_less_sure_than_it():
    pictures = torch.tensor([120, 126, 129, 140]).byte().view(4, 1, 1, 1).expand(4, 3, 8, 8)
    labels = torch.tensor([0, 0, 1, 1])
    rights = []
    for step in (0, 4, 20):
        change = lab.partial(lab.attacked, size=step / 255)
        rights.append(lab.share_right(brightness, pictures, labels, CPU, change))
    assert rights == [1, 0.5, 0]


def test_the_disc_in_the_middle_covers_half_of_the_picture():
    x = torch.rand(2, 3, 100, 100)
    assert lab.middle(x).mean().item() == pytest.approx(0.5, abs=0.02)
    around, inside = (lab.CHANGES[f"grey {place} the middle"](x) for place in ("around", "in"))
    assert torch.equal(around[:, :, 50, 50], x[:, :, 50, 50]) and (around[:, :, 0, 0] == 0.5).all()
    assert torch.equal(inside[:, :, 0, 0], x[:, :, 0, 0]) and (inside[:, :, 50, 50] == 0.5).all()


def test_without_colours_red_green_and_blue_are_one():
    grey = lab.CHANGES["without colours"](torch.rand(2, 3, 8, 8))
    assert torch.equal(grey[:, 0], grey[:, 1]) and torch.equal(grey[:, 0], grey[:, 2])


def test_of_the_rare_classes_a_tenth_is_left():
    labels = torch.arange(10).repeat(100)
    _, left = lab.thinned((torch.zeros(1000, 3, 32, 32, dtype=torch.uint8), labels))
    assert torch.bincount(left).tolist() == [100, 10] * 5


def test_every_class_is_counted_after_both_trainings(tmp_path, monkeypatch, capsys):
    data = (torch.randint(256, (200, 3, 32, 32)).byte(), torch.arange(10).repeat(20), list("abcdefghij"))
    monkeypatch.setattr(lab, "load_cifar", lambda *_: data)
    monkeypatch.setattr(lab, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["weaknesses", "imbalance", "--quick"])
    lab.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("class")]
    assert len(lines) == 12
    assert all("balanced" in line and "thinned" in line for line in lines)


def save_two_networks(folder, monkeypatch):
    save_weights(folder / "cifar10.pth", Standardized(CifarCNN()))
    for name, file in (("cifar", "cifar10.pth"), ("cats_dogs", "cats_dogs.pth")):
        monkeypatch.setitem(weights.NETWORKS, name, weights.NETWORKS[name]._replace(path=folder / file))
    save_network(folder / "cats_dogs.pth", small(2), "small", 32)


@pytest.mark.parametrize(("what", "lines"), [("attack", len(lab.STEPS)), ("pictures", len(lab.CHANGES))])
def test_a_line_for_each_step_and_each_change(tmp_path, monkeypatch, capsys, what, lines):
    save_two_networks(tmp_path, monkeypatch)
    make_pictures(tmp_path / "pets", 30)
    data = (torch.randint(256, (20, 3, 32, 32)).byte(), torch.arange(10).repeat(2), list("abcdefghij"))
    monkeypatch.setattr(lab, "load_cifar", lambda *_: data)
    words = [what, "--quick", "--data", tmp_path / "pets", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["weaknesses", *map(str, words)])
    lab.main()
    assert len(capsys.readouterr().out.splitlines()) == lines


def test_a_table_of_other_pictures_is_printed_and_not_kept(tmp_path, monkeypatch, capsys):
    save_two_networks(tmp_path, monkeypatch)
    make_pictures(tmp_path / "pets", 2)
    monkeypatch.setattr(lab, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(sys, "argv", ["weaknesses", "pictures", "--data", str(tmp_path / "pets"), "--device", "cpu"])
    lab.main()
    assert len(capsys.readouterr().out.splitlines()) == len(lab.CHANGES) and not (tmp_path / "results").exists()


def test_the_attacked_digit_is_one_that_was_told_surely_and_is_mistaken_surely(tmp_path, monkeypatch):
    monkeypatch.setattr(lab, "FIGURE", tmp_path / "attack.png")
    images, labels = lab.load_mnist(lab.ROOT / "data", train=False)
    monkeypatch.setattr(lab, "load_mnist", lambda *_, **__: (images[:300], labels[:300]))
    (row,) = lab.digit(argparse.Namespace(quick=False), CPU)
    assert row["before"] == labels[row["digit"]] != row["after"]
    assert min(row["sure_before"], row["sure_after"]) > 0.5 and row["right_before"] > row["right_after"]
    assert (tmp_path / "attack.png").exists()


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_before_another_background_the_car_stays_and_nothing_else(background):
    picture = np.full((40, 60, 3), 99, np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[10:20, 10:30] = True
    changed = cut_out(picture, mask, background)
    assert changed.shape == picture.shape and changed.dtype == np.uint8 and (changed[mask] == 99).all()
    assert (changed[~mask] == 99).all() if background == "its own" else (changed[~mask] != 99).any(axis=1).mean() > 0.9


def test_cars_are_scored_before_every_background(tmp_path, monkeypatch, capsys):
    pair = (lab.ROOT / "car.jpg", lab.RESULTS / "unet" / "car_mask.png")
    monkeypatch.setattr(lab, "find_pairs", lambda *_, **__: [])
    monkeypatch.setattr(lab, "split_by_car", lambda *_: ([], [], [pair]))
    monkeypatch.setattr(lab, "predict_mask", lambda network, picture: np.zeros(picture.size[::-1], np.uint8))
    monkeypatch.setattr(sys, "argv", ["weaknesses", "environment", "--quick", "--device", "cpu"])
    lab.main()
    assert len(capsys.readouterr().out.splitlines()) == len(BACKGROUNDS)


def test_stopping_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    data = (torch.randint(256, (200, 3, 32, 32)).byte(), torch.arange(10).repeat(20), list("abcdefghij"))
    monkeypatch.setattr(lab, "load_cifar", lambda *_: data)
    monkeypatch.setattr(lab, "ROOT", tmp_path)
    monkeypatch.setattr(lab, "train", stop)
    monkeypatch.setattr(sys, "argv", ["weaknesses", "imbalance", "--quick"])
    with pytest.raises(SystemExit) as stopped:
        lab.main()
    assert stopped.value.code == 130 and capsys.readouterr().err == "\nStopped. The same command goes on.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attack"], "no pictures in nowhere"),
        (["attack", "--cifar", "missing.pth"], "there are no weights missing.pth"),
        (["environment"], "no photographs in nowhere"),
        (["pictures"], "there should be pictures in nowhere"),
        (["imbalance"], "no pictures in nowhere"),
    ],
)
def test_what_is_missing_is_said_in_one_line(tmp_path, monkeypatch, arguments, message):
    save_two_networks(tmp_path, monkeypatch)
    nowhere = [word for option in ("--data", "--cifar-data", "--photographs") for word in (option, "nowhere")]
    monkeypatch.setattr(sys, "argv", ["weaknesses", *arguments, *nowhere])
    with pytest.raises(SystemExit) as stop:
        lab.main()
    assert str(stop.value).startswith("error: ") and message in str(stop.value)
