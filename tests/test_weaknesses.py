"""Tests of labs/weaknesses."""

import sys

import pytest
import torch
from test_cats_dogs import make_pictures

import labs.weaknesses.__main__ as lab
from labs import weights
from labs.cats_dogs.scores import save_network
from labs.cifar10.networks import CifarCNN, Standardized
from labs.resnet import small
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
        change = lab.partial(lab.attacked, step=step / 255)
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
    own = weights.NETWORKS["cats_dogs"]._replace(path=folder / "cats_dogs.pth")
    monkeypatch.setitem(weights.NETWORKS, "cats_dogs", own)
    save_network(folder / "cats_dogs.pth", small(2), "small", 32)


@pytest.mark.parametrize(("what", "lines"), [("attack", len(lab.STEPS)), ("pictures", len(lab.CHANGES))])
def test_a_line_for_each_step_and_each_change(tmp_path, monkeypatch, capsys, what, lines):
    save_two_networks(tmp_path, monkeypatch)
    make_pictures(tmp_path / "pets", 30)
    data = (torch.randint(256, (20, 3, 32, 32)).byte(), torch.arange(10).repeat(2), list("abcdefghij"))
    monkeypatch.setattr(lab, "load_cifar", lambda *_: data)
    words = [what, "--quick", "--cifar", tmp_path, "--data", tmp_path / "pets", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["weaknesses", *map(str, words)])
    lab.main()
    assert len(capsys.readouterr().out.splitlines()) == lines


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
        (["attack"], "the weights of cifar are too large for the repository"),
        (["attack", "--cifar", "RUN"], "no pictures in nowhere"),
        (["pictures"], "there should be pictures in nowhere"),
        (["imbalance"], "no pictures in nowhere"),
    ],
)
def test_what_is_missing_is_said_in_one_line(tmp_path, monkeypatch, arguments, message):
    save_two_networks(tmp_path, monkeypatch)
    given = [str(tmp_path) if word == "RUN" else word for word in arguments]
    monkeypatch.setattr(sys, "argv", ["weaknesses", *given, "--data", "nowhere", "--cifar-data", "nowhere"])
    with pytest.raises(SystemExit) as stop:
        lab.main()
    assert str(stop.value).startswith("error: ") and message in str(stop.value)
