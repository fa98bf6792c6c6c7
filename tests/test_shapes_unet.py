"""Three U-Nets that find discs in noise: their parts, their training, and what they are scored on."""

import csv
import json
import re
import sys

import pytest
import torch
from torch import nn

import labs.shapes_unet.__main__ as lab
from labs.shapes_unet import scores
from labs.shapes_unet.networks import NETWORKS, AddUNet, NoiseUnits, ShallowUNet, make_network
from labs.shapes_unet.scores import scored_pictures
from lenet import count_parameters
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


def test_in_noise_units_the_ground_is_0_and_the_noise_1_however_bright_the_picture_is():
    ground = 30 + 5 * torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    picture = ground.clone()
    picture[..., 20:60, 30:70] += 1000
    for scale in (1, 0.01):
        units = NoiseUnits()(scale * picture)
        free = units[..., 64:, :]
        assert free.mean().item() == pytest.approx(0, abs=0.1) and free.std().item() == pytest.approx(1, abs=0.1)
        assert (units[..., 20:60, 30:70] == 4).all()


def test_a_picture_without_noise_has_noise_units_too():
    assert torch.equal(NoiseUnits()(torch.full((1, 1, 32, 32), 0.5)), torch.zeros(1, 1, 32, 32))


def test_the_pictures_to_choose_settings_on_are_not_those_of_the_score():
    (count, scored), (_, other) = (lab.pictures_of({"quick": True, "validate": validate}) for validate in (False, True))
    images, others = scored_pictures(count, scored)[0], scored_pictures(count, other)[0]
    assert not any(torch.equal(image, other) for image in images for other in others)


def test_no_two_batches_of_a_training_show_the_same_picture():
    pictures = torch.cat([images for images, _ in lab.batches(0, 4, 0, 3)])
    assert len({picture.numpy().tobytes() for picture in pictures}) == len(pictures) == 12
    ((again, _),) = lab.batches(0, 4, 2, 1)
    assert torch.equal(again, pictures[8:])


def run(monkeypatch, *words) -> None:
    monkeypatch.setattr(sys, "argv", ["shapes_unet", *map(str, words)])
    lab.main()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("shapes") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(monkeypatch, "train", "--quick", "--base-channels", 4, "--out", out, "--device", "cpu")
    return out


def test_a_quick_training_leaves_its_figures_and_its_loss_of_each_step(finished):
    names = {"checkpoint.pth", "curves.png", "history.csv", "losses.csv", "predictions.png", "worst.png"}
    assert {path.name for path in finished.iterdir()} >= names
    assert len((finished / "losses.csv").read_text().splitlines()) == 1 + lab.EPOCHS * 3


def test_a_training_that_was_stopped_inside_an_epoch_ends_with_the_same_losses(finished, tmp_path, monkeypatch):
    steps, taken = lab.train_steps, []

    def stopped(*arguments, **options):
        for loss in steps(*arguments, **options):
            yield loss
            taken.append(loss)
            if len(taken) == 4:
                raise KeyboardInterrupt

    words = ["train", "--quick", "--base-channels", 4, "--out", tmp_path / "run", "--device", "cpu"]
    monkeypatch.setattr("training.CHECKPOINT_SECONDS", 0)
    with monkeypatch.context() as context, pytest.raises(SystemExit):
        context.setattr(lab, "train_steps", stopped)
        run(context, *words)
    run(monkeypatch, *words[:1], *words[4:], "--resume")
    assert (tmp_path / "run" / "losses.csv").read_text() == (finished / "losses.csv").read_text()


def test_one_step_an_epoch_is_a_training_too(tmp_path, monkeypatch):
    monkeypatch.setattr(lab, "SCORED", 2)
    run(monkeypatch, "train", "--recipe", "ours", "--steps", 1, "--base-channels", 2, "--out", tmp_path / "run")
    assert (tmp_path / "run" / "worst.png").exists()


def test_a_run_predicts_new_pictures_as_often_as_one_likes(finished, monkeypatch, capsys):
    words = ["predict", finished, "--sigma", 5, "--count", 3, "--nx", 64, "--device", "cpu"]
    for seed in ([], [], ["--seed", 7], ["--seed", 7]):
        run(monkeypatch, *words, *seed)
    first, second, third, again = capsys.readouterr().out.splitlines()
    assert first != second and third == again
    assert re.fullmatch(r"seed 7: Dice( \d\.\d{4},){3} \d\.\d{4}; drawn in .*new.png", again)
    assert (finished / "new.png").exists()


def test_runs_are_scored_in_more_and_less_noise(finished, tmp_path, monkeypatch):
    for name in ("RESULTS", "FIGURES"):
        monkeypatch.setattr(lab, name, tmp_path)
    (tmp_path / "labs").mkdir()
    monkeypatch.setattr(lab, "SCORED", 2)
    with pytest.raises(SystemExit, match="is a --quick run, which shows only that the lab works"):
        run(monkeypatch, "noise", finished)
    monkeypatch.setattr(lab, "to_keep", lambda *_: {"recipe": "seed"})
    with pytest.raises(SystemExit, match="error: two of the runs have the same recipe: give one run of each"):
        run(monkeypatch, "noise", finished, finished)
    run(monkeypatch, "noise", finished, "--device", "cpu")
    rows = list(csv.DictReader((tmp_path / "labs" / "shapes_noise.csv").open(newline="")))
    assert [int(row["sigma"]) for row in rows] == [0, 5, 10, 20, 30, 40, 60, 80]
    assert (tmp_path / "noise.png").exists()


def test_compare_keeps_a_row_a_training_and_makes_none_twice(tmp_path, monkeypatch):
    row = {**next(lab.configurations()), "base_channels": 2, "steps": 2}
    two = [row, {**row, "recipe": "ours", "noise_units": True}]
    monkeypatch.setattr(lab, "configurations", lambda: iter(two))
    for module in (lab, scores):
        monkeypatch.setattr(module, "SCORED", 8)
    for name in ("ROOT", "RESULTS", "FIGURES"):
        monkeypatch.setattr(lab, name, tmp_path / name)
        (tmp_path / name).mkdir()
    lab.compare(torch.device("cpu"))
    with (tmp_path / "RESULTS" / "labs" / "shapes_unet.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["recipe"] for row in rows] == ["seed", "ours"]
    monkeypatch.setattr(lab, "train", lambda *_: pytest.fail("trained twice"))
    lab.compare(torch.device("cpu"))
    written = {path.name for path in (tmp_path / "FIGURES").iterdir()}
    assert written == {"losses.png", "predictions.png", "worst.png"}


def test_no_configuration_is_compared_twice():
    rows = [tuple(row.values()) for row in lab.configurations()]
    assert len(set(rows)) == len(rows) == 18 + 9 + 1 + 6 + 3 + 9 + 1


def test_the_seeds_four_matrices_give_the_seeds_values(tmp_path):
    scores.metrics(tmp_path / "metrics.json")
    result = json.loads((tmp_path / "metrics.json").read_text())
    values = [result[name]["jaccard"] for name in ("eye_eye", "eye_ones", "zeros_ones", "zeros_zeros")]
    assert values == pytest.approx([1, 0.3333, 1.1111e-05, 1], rel=1e-3)


def test_speed_takes_the_steps_of_both_recipes_by_turns(tmp_path, monkeypatch):
    taken = []

    def steps(_network, left, *_, **__):
        for images, _ in left:
            taken.append(len(images))
            yield 0.0

    monkeypatch.setattr(lab, "RESULTS", tmp_path)
    monkeypatch.setattr(lab, "TIMED_STEPS", 2)
    monkeypatch.setattr(lab, "train_steps", steps)
    lab.speed()
    assert taken == [recipe["batch_size"] for recipe in lab.RECIPES.values()] * 2
    assert set(json.loads((tmp_path / "labs" / "shapes_speed.json").read_text())) == {"seed", "ours", "ratio"}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["train", "--base-channels", "0"], "argument --base-channels: must be from 1 to 256, not 0"),
        (["train", "--seed", "-1"], "argument --seed: must be from 0"),
        (["train", "--device", "tpu"], "unknown device 'tpu'"),
        (["train", "--resume"], "--resume needs --out DIR"),
        (["predict", "nowhere"], "nowhere holds no finished run"),
        (["noise", "nowhere"], "nowhere holds no finished run"),
    ],
)
def test_a_wrong_option_is_one_error(monkeypatch, capsys, words, error):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *words)
    assert f"error: {error}" in f"{stop.value.code}{capsys.readouterr().err}"
