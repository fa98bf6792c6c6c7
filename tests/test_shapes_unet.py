"""Three U-Nets that find discs in noise: their parts, their training, and what they are scored on."""

import csv
import subprocess
import sys

import pytest
import torch
from torch import nn

from labs import shapes_scores, shapes_unet
from labs.shapes_networks import NETWORKS, AddUNet, ShallowUNet, make_network
from lenet import count_parameters
from report.fill import ROOT
from unet import UNet


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gives_two_scores_for_every_pixel(name, norm):
    network = make_network(name, norm, base_channels=2)
    assert network(torch.rand(2, 1, 32, 48)).shape == (2, 2, 32, 48)
    normed = sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in network.modules()) - 1  # final_conv has none
    assert normed == (convolutions if norm else 0)


def test_the_shallow_network_halves_its_maps_twice():
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in ShallowUNet(1, 2, 2).modules()) == 2


def test_added_skips_leave_a_third_fewer_weights_in_each_up_conv():
    joined, added = UNet(1, 2, 16), AddUNet(1, 2, 16)
    for level in range(1, 5):
        weights = [
            sum(w.numel() for w in getattr(net, f"up_conv{level}").parameters() if w.dim() > 1)
            for net in (joined, added)
        ]
        assert weights[1] / weights[0] == pytest.approx(2 / 3)
    assert count_parameters(added.down_conv3) == count_parameters(joined.down_conv3)


def test_added_skips_are_added():
    network = AddUNet(1, 2, 2)
    x, skip = torch.rand(1, 2, 4, 4), torch.rand(1, 2, 5, 5)
    assert torch.equal(network.concat4(x, skip), x + skip[:, :, :4, :4])


def test_no_two_batches_of_a_training_show_the_same_picture():
    pictures = torch.cat([images for images, _ in shapes_unet.batches(0, 0, 3)])
    assert len({picture.numpy().tobytes() for picture in pictures}) == len(pictures) == 12
    ((again, _),) = shapes_unet.batches(0, 2, 1)
    assert torch.equal(again, pictures[8:])


def run(monkeypatch, *words) -> None:
    monkeypatch.setattr(sys, "argv", ["shapes_unet.py", *map(str, words)])
    shapes_unet.main()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("shapes") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(monkeypatch, "train", "--quick", "--base-channels", 4, "--out", out, "--device", "cpu")
    return out


def test_a_quick_training_leaves_its_figures_and_its_loss_of_each_step(finished):
    names = {"checkpoint.pth", "curves.png", "history.csv", "losses.csv", "predictions.png", "worst.png"}
    assert {path.name for path in finished.iterdir()} == names
    assert len((finished / "losses.csv").read_text().splitlines()) == 1 + shapes_unet.EPOCHS * 3


def test_a_training_that_was_stopped_inside_an_epoch_ends_with_the_same_losses(finished, tmp_path, monkeypatch):
    steps, taken = shapes_unet.train_steps, []

    def stopped(*arguments, **options):
        for loss in steps(*arguments, **options):
            yield loss
            taken.append(loss)
            if len(taken) == 4:
                raise KeyboardInterrupt

    words = ["train", "--quick", "--base-channels", 4, "--out", tmp_path / "run", "--device", "cpu"]
    monkeypatch.setattr("training.CHECKPOINT_SECONDS", 0)
    with monkeypatch.context() as context, pytest.raises(SystemExit):
        context.setattr(shapes_unet, "train_steps", stopped)
        run(context, *words)
    run(monkeypatch, *words[:1], *words[4:], "--resume")
    assert (tmp_path / "run" / "losses.csv").read_text() == (finished / "losses.csv").read_text()


def test_compare_keeps_a_row_a_training_and_makes_none_twice(tmp_path, monkeypatch):
    first = [next(shapes_unet.configurations()), {**next(shapes_unet.configurations()), "recipe": "ours"}]
    monkeypatch.setattr(shapes_unet, "configurations", lambda: iter([{**one, "base_channels": 2} for one in first]))
    for module in (shapes_unet, shapes_scores):
        monkeypatch.setattr(module, "SCORED", 8)
    monkeypatch.setattr(shapes_unet, "STEPS", 2)
    for name in ("ROOT", "RESULTS", "FIGURES"):
        monkeypatch.setattr(shapes_unet, name, tmp_path / name)
    shapes_unet.compare(torch.device("cpu"))
    with (tmp_path / "RESULTS" / "shapes_unet.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["recipe"] for row in rows] == ["seed", "ours"]
    monkeypatch.setattr(shapes_unet, "train", lambda *_: pytest.fail("trained twice"))
    shapes_unet.compare(torch.device("cpu"))
    written = {path.name for path in (tmp_path / "FIGURES").iterdir()}
    assert written == {"shapes_losses.png", "shapes_predictions.png", "shapes_worst.png"}


def test_the_seeds_four_matrices_give_the_seeds_values(capsys):
    shapes_unet.metrics()
    values = [float(line.split()[1].rstrip(",")) for line in capsys.readouterr().out.splitlines()[:4]]
    assert values == pytest.approx([1, 0.3333, 1.1111e-05, 1], rel=1e-3)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["train", "--base-channels", "0"], "--base-channels must be from 1 to 256, not 0"),
        (["train", "--seed", "-1"], "--seed must be from 0"),
        (["train", "--device", "tpu"], "unknown device 'tpu'"),
        (["train", "--resume"], "--resume needs --out DIR"),
    ],
)
def test_a_wrong_option_is_one_error(monkeypatch, words, error):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *words)
    assert stop.value.code.startswith(f"error: {error}")


def test_the_lab_runs_as_a_module_from_the_root():
    done = subprocess.run(
        [sys.executable, "-m", "labs.shapes_unet", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "compare" in done.stdout
