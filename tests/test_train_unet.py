"""The U-Net trains on photographs split by car, goes on where it was stopped, and is scored on cars it never saw."""

import csv
import functools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Ended, ended
from PIL import Image

import carvana
import train_unet
import training
from carvana import (
    CarDataset,
    car_of,
    find_pairs,
    open_photograph,
    read_mask,
    split_by_car,
)
from train_unet import (
    DEFAULTS,
    dice_coefficient,
    epoch_batches,
    jaccard,
    parse_stages,
    segmentation_loss,
)
from training import epoch_generator
from unet import UNet, load_unet

ROOT = Path(__file__).resolve().parent.parent
EYE, ONES, ZEROS = torch.eye(3), torch.ones(3, 3), torch.zeros(3, 3)
SMALL = ["--base-channels", "3", "--val-cars", "1", "--device", "cpu", "--lr", "0.02"]
STAGES = "32:5:2,48:3:4"
SHORT = "32:2:2,48:1:4"


def draw(rng: np.random.Generator, width: int = 96, height: int = 64) -> tuple[Image.Image, Image.Image]:
    """A picture with one bright ellipse on a dark noisy ground, and the ellipse's mask."""
    y, x = np.mgrid[:height, :width]
    centre_x, centre_y = rng.uniform(0.4, 0.6, 2) * (width, height)
    mask = ((x - centre_x) / (0.3 * width)) ** 2 + ((y - centre_y) / (0.3 * height)) ** 2 < 1
    picture = rng.uniform(0, 60, (height, width, 3)) + 150 * mask[..., None]
    return Image.fromarray(picture.astype(np.uint8)), Image.fromarray(mask)


def draw_cars(folder: Path, cars: int = 6, views: int = 2, prefix: str = "ca") -> Path:
    """Drawn photographs in `folder`, as Kaggle lays them out and names them."""
    rng = np.random.default_rng(0)
    for name in ("train", "train_masks"):
        (folder / name).mkdir(parents=True)
    for car in range(cars):
        for view in range(1, views + 1):
            photo, mask = draw(rng)
            photo.save(folder / "train" / f"{prefix}{car:010}_{view:02}.png")
            mask.save(folder / "train_masks" / f"{prefix}{car:010}_{view:02}_mask.gif")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Six drawn cars, two views each; no test may change them."""
    return draw_cars(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def own_data(tmp_path) -> Path:
    """Three drawn cars, one view each, for a test that damages them."""
    return draw_cars(tmp_path / "data", cars=3, views=1)


@pytest.fixture
def extra(tmp_path) -> Path:
    """Three drawn cars more, one view each."""
    return draw_cars(tmp_path / "extra", cars=3, views=1, prefix="ec")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run_main(monkeypatch, *words) -> None:
    """What `python train_unet.py WORDS` does, in this process."""
    monkeypatch.setattr(sys, "argv", ["train_unet.py", *map(str, words)])
    train_unet.main()


def only_train(monkeypatch) -> None:
    """No report and no curves, which take longer to draw than these networks to train."""
    monkeypatch.setattr(train_unet, "report_on", lambda *_: None)
    monkeypatch.setattr(training, "plot_curves", lambda *_: None)


def error_of(monkeypatch, *words) -> str:
    """The error with which `python train_unet.py WORDS` ends."""
    with pytest.raises(SystemExit) as stop:
        run_main(monkeypatch, *words)
    assert str(stop.value.code).startswith("error: ")
    return stop.value.code


def as_it_is() -> None:
    pass


def checkpoint_each_step() -> None:
    training.CHECKPOINT_SECONDS = 0


def prepared_main(prepare: Callable[[], None], words: list[str]) -> None:
    prepare()
    sys.argv = ["train_unet.py", *words]
    train_unet.main()


def unet(*words: object, prepare: Callable[[], None] = as_it_is) -> Callable[[], None]:
    """What `python train_unet.py WORDS` does, for a process of its own; `prepare` arranges what will happen to it."""
    return functools.partial(prepared_main, prepare, list(map(str, words)))


@pytest.fixture(scope="module")
def finished_run(data, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a run over two sizes that nothing interrupted, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    command = [sys.executable, ROOT / "train_unet.py", "--data", data, *SMALL, "--stages", STAGES, "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")
    return out, done.stdout


# Dice and Jaccard


@pytest.mark.parametrize(
    ("prediction", "target", "dice", "index"),
    [(EYE, EYE, 1, 1), (EYE, ONES, 0.5, 0.3333), (ZEROS, ONES, 1.1111e-05, 1.1111e-05), (ZEROS, ZEROS, 1, 1)],
    ids=["eye/eye", "eye/ones", "zeros/ones", "zeros/zeros"],
)
def test_dice_and_jaccard_are_the_laboratorys(prediction, target, dice, index):
    assert dice_coefficient(prediction, target).item() == pytest.approx(dice, rel=2e-4)
    assert jaccard(prediction, target).item() == pytest.approx(index, rel=2e-4)


@pytest.mark.parametrize("measure", [dice_coefficient, jaccard])
def test_each_picture_of_a_batch_has_a_dice_and_a_jaccard_of_its_own(measure):
    predictions = torch.stack([EYE, ZEROS])[:, None]
    targets = torch.stack([ONES, ZEROS])[:, None]
    alone = [[measure(EYE, ONES).item()], [1.0]]
    assert measure(predictions, targets).tolist() == alone


def test_the_dice_in_the_loss_is_each_pictures_own():
    """One picture all right and one all wrong: pooled, the large one would outweigh the small one."""
    masks = torch.zeros(2, 1, 8, 8)
    masks[0] = 1
    masks[1, 0, 0, 0] = 1
    scores = torch.full_like(masks, -100.0)
    scores[0] = 100
    cross_entropy = 100 / 128  # one wrong pixel of 128
    assert segmentation_loss(scores, masks).item() == pytest.approx(cross_entropy + 0.5, abs=1e-3)


def no_mask(data: Path) -> None:
    (data / "train_masks" / "ca0000000001_01_mask.gif").unlink()


# The split


def renamed(data: Path, folder: Path, count: int) -> Path:
    """A copy of `data` in `folder` whose first `count` photographs have a camera's names."""
    shutil.copytree(data, folder)
    for number, (photo, mask, *_) in enumerate(find_pairs(folder)[:count]):
        photo.rename(photo.with_stem(f"IMG_{number:04}"))
        mask.rename(mask.with_stem(f"IMG_{number:04}_mask"))
    return folder


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "split by car"),
        (12, "split by photograph, for their names do not say which car they show"),
        (4, "split by car where names say it (8 photographs), else by photograph"),
    ],
)
def test_a_run_says_first_how_the_photographs_are_split(data, tmp_path, monkeypatch, capsys, count, said):
    own = renamed(data, tmp_path / "own", count)
    monkeypatch.setattr(train_unet, "train", lambda *_: None)
    run_main(monkeypatch, "--data", own, "--out", tmp_path / "run", *SMALL)
    assert re.fullmatch(rf"Training on \d+ .*: {re.escape(said)}; car on .*", capsys.readouterr().out.splitlines()[0])


# Batches and stages


def test_the_shares_of_the_processes_are_equal_disjoint_and_cover_each_batch():
    whole = epoch_batches(23, 6, epoch_generator(0, 1), rank=0, ranks=1)
    shares = [epoch_batches(23, 6, epoch_generator(0, 1), rank, ranks=3) for rank in range(3)]
    assert [len(batch) for batch in whole] == [6, 6, 6]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert [len(part) for part in parts] == [2, 2, 2]
        assert sorted(sum(parts, [])) == sorted(batch)


def test_an_epoch_shows_no_photograph_twice():
    order = sum(epoch_batches(23, 6, epoch_generator(0, 1), rank=0, ranks=1), [])
    assert len(set(order)) == 18


def test_stages_are_sizes_epochs_and_batches():
    assert parse_stages("96:4:8,572:1", batch_size=3) == [(96, 4, 8), (572, 1, 3)]


@pytest.mark.parametrize(
    "text", ["", "96", "96:", "96:4:8:1", "96:4;", "96:4,", "a:4", "96:-4", "9.6:4", "15:1", "96:0"]
)
def test_stages_that_make_no_sense_are_refused(text):
    with pytest.raises(ValueError, match="^--stages: "):
        parse_stages(text)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--stages", "15:1"], "--stages: a number of '15:1' must be from 16 to 4096"),
        (["--stages", ""], "--stages: '' is not SIZE:EPOCHS"),
        (["--stages", "96:1", "--epochs", "2"], "--stages already says"),
        (["--stages", "32:1:8", "--batch-size", "2"], "--stages already says every stage's batch"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        (["--model", "nowhere.pth"], "there is no checkpoint nowhere.pth"),
        (["--model", ""], "not a checkpoint"),
        (["--model", ROOT / "model.pth", "--base-channels", "64"], "has 16 base channels, not 64"),
        (["--val-cars", "3"], "keeping 2 x 3 cars out leaves none of the 6"),
        (["--val-cars", "1", "--batch-size", "9"], "a batch of 9 is more than the 8 photographs to train on"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_anything_is_written(data, tmp_path, monkeypatch, words, error):
    assert error in error_of(monkeypatch, "--data", data, "--out", tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("--epochs", "0"), ("--batch-size", "-1"), ("--size", "15"), ("--size", "5000"), ("--base-channels", "0")],
        *[("--lr", "nan"), ("--lr", "inf"), ("--val-cars", "0"), ("--seed", "-1"), ("--workers", "-1")],
    ],
)
def test_a_number_out_of_its_range_is_wrong_usage(monkeypatch, capsys, option, value):
    with pytest.raises(SystemExit) as stop:
        run_main(monkeypatch, "--data", "anywhere", option, value)
    assert stop.value.code == 2
    assert f"error: argument {option}: must be from " in capsys.readouterr().err


def test_damaged_photographs_are_told_before_anything_is_written(own_data, tmp_path, monkeypatch):
    no_mask(own_data)
    assert "ca0000000001_01.png: no mask" in error_of(
        monkeypatch, "--data", own_data, "--out", tmp_path / "run", *SMALL
    )
    assert not (tmp_path / "run").exists()


# Whole runs


def test_training_lowers_the_loss(finished_run):
    losses = [float(row["loss"]) for row in rows_of(finished_run[0] / "losses.csv")]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_a_run_says_what_it_does(finished_run):
    lines = finished_run[1].splitlines()
    assert lines[0] == (
        "Training on 8 photographs, selecting on 2, reporting on 2: split by car; "
        "car on 28.3% of a picture (28.2% to 28.4%)"
    )
    assert lines[1] == f"Using device cpu, writing to {finished_run[0]}"
    for epoch, line in enumerate(lines[2:10], start=1):
        shape = "32x48" if epoch <= 5 else "48x80"
        assert re.fullmatch(
            rf"epoch {epoch}/8 at {shape}: train loss \d\.\d{{4}}, selection Dice \d\.\d{{4}}, \d+ s", line
        )
    assert re.fullmatch(
        r"Report cars: Dice \d\.\d{4}, Jaccard \d\.\d{4}, lowest Dice \d\.\d{4} \(photographs: 2, cars: 1\)", lines[10]
    )
    assert len(lines) == 11


def test_the_losses_of_every_step_are_kept(finished_run):
    rows = rows_of(finished_run[0] / "losses.csv")
    assert [int(row["step"]) for row in rows] == list(range(1, 5 * 4 + 3 * 2 + 1))
    assert [row["size"] for row in rows] == ["32"] * 20 + ["48"] * 6


def test_the_best_weights_are_of_the_last_size(finished_run, data):
    """Those of the epoch of highest selection Dice among the epochs at the last size, whatever smaller sizes gave."""
    out, _ = finished_run
    best = max(float(row["dice"]) for row in rows_of(out / "history.csv") if row["size"] == "48")
    selection = split_by_car(find_pairs(data), 1, DEFAULTS["seed"])[1]
    model = load_unet(out / "best.pth", torch.device("cpu"))
    scores = train_unet.score_pictures(model, selection, 48, "selection cars")
    assert train_unet.mean(scores, "dice") == pytest.approx(best, abs=1e-5)


def test_a_higher_dice_at_a_smaller_size_is_not_kept(data, tmp_path, monkeypatch):
    dice = iter([0.9, 0.3, 0.5, 0.4])
    monkeypatch.setattr(train_unet, "score_pictures", lambda *_: [{"dice": next(dice), "jaccard": 0.1}])
    only_train(monkeypatch)
    kept = []
    monkeypatch.setattr(train_unet, "save_weights", lambda path, *_: kept.append(path.name))
    run_main(monkeypatch, "--data", data, "--out", tmp_path, *SMALL, "--stages", "32:1:8,48:3:8")
    assert kept == ["best.pth", "best.pth"]  # 0.3, the first of the last size, then 0.5
    history = torch.load(tmp_path / "checkpoint.pth", weights_only=True)["history"]
    assert max(row["dice"] for row in history if row["size"] == 48) == 0.5


def test_after_a_stop_a_worse_epoch_does_not_replace_the_best_weights(data, tmp_path, monkeypatch):
    dice = iter([0.9, None, 0.5])

    def rated(*_) -> list[dict[str, float]]:
        value = next(dice)
        if value is None:
            raise KeyboardInterrupt
        return [{"dice": value, "jaccard": 0.1}]

    monkeypatch.setattr(train_unet, "score_pictures", rated)
    only_train(monkeypatch)
    words = ["--data", data, "--out", tmp_path, *SMALL, "--stages", "32:2:8", "--resume"]
    with pytest.raises(SystemExit):
        run_main(monkeypatch, *words)
    before = (tmp_path / "best.pth").read_bytes()
    run_main(monkeypatch, *words)
    assert (tmp_path / "best.pth").read_bytes() == before
    assert [row["dice"] for row in rows_of(tmp_path / "history.csv")] == ["0.9", "0.5"]


def test_every_epoch_shows_all_photographs_in_an_order_and_a_variation_of_its_own(data, tmp_path, monkeypatch):
    load, shown = CarDataset.__getitem__, []
    monkeypatch.setattr(CarDataset, "__getitem__", lambda self, i: shown.append((self.epoch, i)) or load(self, i))
    monkeypatch.setattr(train_unet, "score_pictures", lambda *_: [{"dice": 0.5, "jaccard": 0.4}])
    only_train(monkeypatch)
    run_main(monkeypatch, "--data", data, "--out", tmp_path, *SMALL, "--stages", "32:2:1")
    assert [epoch for epoch, _ in shown] == [1] * 8 + [2] * 8
    first, second = ([index for _, index in shown[start : start + 8]] for start in (0, 8))
    assert first != second and sorted(first) == sorted(second) == list(range(8))


def test_the_score_is_that_of_the_mask_at_the_photographs_full_size(data, monkeypatch):
    pair = find_pairs(data)[0]
    target = read_mask(pair[1])
    wrong = target.copy()
    wrong[0, :3] = True  # three pixels too many
    monkeypatch.setattr(train_unet, "predict_mask", lambda *_, **__: wrong.astype(np.uint8))
    (row,) = train_unet.score_pictures(torch.nn.Identity(), [pair], 32, "cars")
    car = int(target.sum())
    assert (row["dice"], row["jaccard"]) == pytest.approx((2 * car / (2 * car + 3), car / (car + 3)), abs=1e-6)


def test_the_selection_photographs_are_drawn_by_the_seed(tmp_path, monkeypatch):
    """The first ones would be views of one car only."""
    data, scored = draw_cars(tmp_path / "data", cars=3, views=9), []
    monkeypatch.setattr(train_unet, "SELECTION_PICTURES", 4)
    only_train(monkeypatch)
    monkeypatch.setattr(
        train_unet, "score_pictures", lambda _, pairs, *__: scored.extend(pairs) or [{"dice": 0.5, "jaccard": 0.4}]
    )
    for seed in (0, 1):
        words = ["--data", data, *SMALL, "--stages", "32:1:8", "--seed", seed, "--out", tmp_path / f"run{seed}"]
        run_main(monkeypatch, *words)
        selection = split_by_car(find_pairs(data), 1, seed)[1]
        drawn = scored[4 * seed : 4 * seed + 4]
        assert set(drawn) < set(selection) and drawn != selection[:4]
    assert [pair.photo.stem[-2:] for pair in scored[:4]] != [pair.photo.stem[-2:] for pair in scored[4:]]


@pytest.mark.skipif(os.name == "nt", reason="Windows takes no such names")
def test_the_worst_photographs_may_have_any_names(finished_run, data, tmp_path):
    names = ["$x_1$.png", "车.png", os.fsdecode("汽车.png".encode("gbk")), "a\nb.png"]
    pairs = [pair._replace(photo=tmp_path / name) for pair, name in zip(find_pairs(data), names, strict=False)]
    for pair, original in zip(pairs, find_pairs(data), strict=False):
        pair.photo.write_bytes(original.photo.read_bytes())
    scores = [{"photograph": pair.photo.name, "dice": 0.5} for pair in pairs]
    model = load_unet(finished_run[0] / "model.pth", torch.device("cpu"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of glyphs that no font has
        train_unet.plot_worst(tmp_path / "worst.png", model, pairs, scores, 32)
    assert Image.open(tmp_path / "worst.png").width > 1000


def test_without_padding_it_trains_on_the_pictures_own_shape_and_goes_on_so(data, tmp_path, monkeypatch):
    shapes, loss, out = set(), train_unet.segmentation_loss, tmp_path / "run"
    monkeypatch.setattr(
        train_unet, "segmentation_loss", lambda s, m: shapes.add((*s.shape[2:], *m.shape[2:])) or loss(s, m)
    )

    def ctrl_c(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(SystemExit):
        context.setattr(train_unet, "report_on", ctrl_c)
        run_main(context, "--data", data, *SMALL, "--no-pad", "--stages", "40:1:8", "--out", out)
    run_main(monkeypatch, "--data", data, "--device", "cpu", "--resume", "--out", out)
    assert shapes == {(32, 48, 40, 60)}
    assert len(rows_of(out / "scores.csv")) == 2


def test_a_mask_larger_than_the_scores_is_compared_in_its_middle():
    masks, scores = torch.zeros(1, 1, 20, 20), torch.full((1, 1, 16, 16), -20.0)
    masks[:, :, 2:4, 2:18] = 1
    scores[:, :, 0:2] = 20
    assert segmentation_loss(scores, masks) < 1e-3


def test_model_pth_is_best_pth_in_float16(finished_run):
    out, _ = finished_run
    model, best = (torch.load(out / name, weights_only=True) for name in ("model.pth", "best.pth"))
    assert len(model) == 46
    assert all(value.dtype == torch.float16 and torch.equal(value, best[name].half()) for name, value in model.items())
    load_unet(out / "model.pth", torch.device("cpu"))


def test_the_scores_are_those_of_the_report_cars(finished_run, data):
    report = split_by_car(find_pairs(data), 1, DEFAULTS["seed"])[2]
    rows = rows_of(finished_run[0] / "scores.csv")
    assert [(row["photograph"], row["car"]) for row in rows] == [(pair[0].name, car_of(pair)) for pair in report]


@pytest.mark.parametrize("name", ["curves.png", "worst.png"])
def test_the_figures_can_be_opened(finished_run, name):
    assert min(open_photograph(finished_run[0] / name).size) > 300


def test_extra_pictures_are_trained_on_and_nothing_else(data, extra, tmp_path, monkeypatch, capsys):
    load, shown = carvana.load_sample, set()
    monkeypatch.setattr(carvana, "load_sample", lambda pair, *size: shown.add(pair[0]) or load(pair, *size))
    monkeypatch.setattr(train_unet, "score_pictures", lambda *_: [{"dice": 0.5, "jaccard": 0.4}])
    only_train(monkeypatch)
    words = ["--data", data, "--extra", extra, "--out", tmp_path / "run", *SMALL, "--stages", "32:1:8"]
    run_main(monkeypatch, *words)
    assert "Training on 11 photographs, selecting on 2, reporting on 2: split by car; " in capsys.readouterr().out
    training, _, _ = split_by_car(find_pairs(data), 1, DEFAULTS["seed"])
    assert shown == {pair.photo for pair in training + find_pairs(extra)}


@pytest.mark.parametrize("given", ["the same", "fewer", "none"])
def test_a_run_goes_on_with_the_same_extra_pictures_only(data, extra, tmp_path, monkeypatch, given):
    def ctrl_c(*_):
        raise KeyboardInterrupt

    words = ["--data", data, "--out", tmp_path / "run", "--resume"]
    with monkeypatch.context() as context, pytest.raises(SystemExit):
        context.setattr(train_unet, "report_on", ctrl_c)
        run_main(context, *words, "--extra", extra, *SMALL, "--stages", "32:1:8")
    for path in extra.glob("*/ec0000000000_*") if given == "fewer" else ():
        path.unlink()
    words += [] if given == "none" else ["--extra", extra]
    if given == "the same":
        run_main(monkeypatch, *words)
    else:
        count = {"fewer": 14, "none": 12}[given]
        assert re.search(rf"photographs {count} with .* \(the run has 15 with", error_of(monkeypatch, *words))


def test_a_fault_in_the_extra_pictures_is_told_before_anything_is_written(data, extra, tmp_path, monkeypatch):
    (extra / "train_masks" / "ec0000000001_01_mask.gif").unlink()
    error = error_of(monkeypatch, "--data", data, "--extra", extra, "--out", tmp_path / "run", *SMALL)
    assert "ec0000000001_01.png: no mask" in error
    assert not (tmp_path / "run").exists()


def test_extra_pictures_of_cars_that_are_reported_on_are_refused_and_named(data, tmp_path, monkeypatch):
    error = error_of(monkeypatch, "--data", data, "--extra", data, "--out", tmp_path / "run", *SMALL)
    _, selection, report = split_by_car(find_pairs(data), 1, DEFAULTS["seed"])
    cars = sorted({car_of(pair) for pair in selection + report})
    assert f"--extra shows cars that are kept out of the training, {', '.join(cars)}:" in error
    assert not (tmp_path / "run").exists()


def test_a_run_can_start_from_weights_and_has_their_width(finished_run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(train_unet, "score_pictures", lambda *_: [{"dice": 0.5, "jaccard": 0.4}])
    only_train(monkeypatch)
    first = finished_run[0] / "model.pth"
    words = ["--data", data, "--val-cars", "1", "--device", "cpu", "--stages", "32:1:8", "--lr", "1e-9"]
    run_main(monkeypatch, *words, "--model", first, "--out", tmp_path, "--resume")  # --resume finds nothing, yet
    before, after = (load_unet(path, torch.device("cpu")).state_dict() for path in (first, tmp_path / "best.pth"))
    assert all(torch.allclose(after[name], value, atol=1e-6) for name, value in before.items())


def test_a_run_that_started_from_weights_goes_on_from_its_own(finished_run, data, tmp_path, monkeypatch):
    first = tmp_path / "first.pth"
    first.write_bytes((finished_run[0] / "model.pth").read_bytes())
    words = ["--data", data, "--model", first, "--val-cars", "1", "--device", "cpu", "--stages", "32:2:4"]
    run_main(monkeypatch, *words, "--out", tmp_path / "whole")
    raters = [train_unet.score_pictures]  # after the second epoch there is no other: Ctrl-C

    def interrupted(*arguments) -> list[dict[str, float]]:
        if not raters:
            raise KeyboardInterrupt
        return raters.pop()(*arguments)

    with monkeypatch.context() as context, pytest.raises(SystemExit):
        context.setattr(train_unet, "score_pictures", interrupted)
        run_main(context, *words, "--out", tmp_path / "stopped")
    first.unlink()
    run_main(monkeypatch, "--data", data, "--device", "cpu", "--out", tmp_path / "stopped", "--resume")
    assert (tmp_path / "stopped" / "model.pth").read_bytes() == (tmp_path / "whole" / "model.pth").read_bytes()


def test_a_finished_run_says_so_and_is_left_alone(finished_run, data, monkeypatch, capsys):
    out, _ = finished_run
    before = (out / "model.pth").stat().st_mtime_ns
    run_main(monkeypatch, "--data", data, "--out", out, "--resume")
    assert capsys.readouterr().out == f"{out} is finished: all its 8 epochs are done. Nothing to do.\n"
    assert (out / "model.pth").stat().st_mtime_ns == before


def test_a_run_is_not_overwritten(finished_run, data, monkeypatch):
    assert "already holds a run" in error_of(monkeypatch, "--data", data, "--out", finished_run[0], *SMALL)


def test_weights_that_are_already_in_the_folder_are_not_overwritten(data, tmp_path, monkeypatch):
    """Such as the model.pth of this repository's root, when somebody writes --out ."""
    (tmp_path / "model.pth").write_bytes(b"weights")
    assert "holds a run (model.pth)" in error_of(monkeypatch, "--data", data, "--out", tmp_path, *SMALL)


def test_other_settings_than_the_runs_are_refused_and_listed(finished_run, data, monkeypatch):
    words = ["--data", data, "--out", finished_run[0], "--resume", "--lr", "0.1", "--seed", "3", "--epochs", "2"]
    error = error_of(monkeypatch, *words)
    assert "lr 0.1 (the run has 0.02)" in error
    assert "seed 3 (the run has 0)" in error
    assert "stages 572:2:4 (the run has 32:5:2,48:3:4)" in error


def test_a_run_does_not_go_on_with_other_photographs(finished_run, own_data, monkeypatch):
    error = error_of(monkeypatch, "--data", own_data, "--out", finished_run[0], "--resume")
    assert re.search(r"photographs 3 with checksum \w+ \(the run has 12 with checksum \w+\)", error)


def test_a_run_does_not_go_on_with_as_many_photographs_of_other_cars(data, finished_run, tmp_path, monkeypatch):
    """Their split is another: what is reported on might have been trained on."""
    other = draw_cars(tmp_path / "data")
    for path in list(other.glob("*/ca0000000000_*")):
        path.rename(path.with_name(path.name.replace("ca0000000000", "ca0000000009")))
    assert "photographs 12 with" in error_of(monkeypatch, "--data", other, "--out", finished_run[0], "--resume")


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"no checkpoint"])
def test_a_damaged_checkpoint_is_refused(data, tmp_path, monkeypatch, content):
    (tmp_path / "checkpoint.pth").write_bytes(content)
    error = error_of(monkeypatch, "--data", data, "--out", tmp_path, "--resume")
    assert "checkpoint.pth is damaged or is no checkpoint" in error


def test_a_checkpoint_of_the_lenet_is_refused(data, tmp_path, monkeypatch):
    torch.save({"script": "train_lenet.py", "settings": {}}, tmp_path / "checkpoint.pth")
    error = error_of(monkeypatch, "--data", data, "--out", tmp_path, "--resume")
    assert "checkpoint.pth is not a checkpoint of train_unet.py" in error


def test_one_odd_batch_moves_the_weights_by_a_gradient_of_norm_1_at_most():
    torch.manual_seed(0)
    model = UNet(3, 1, 2)
    before = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    batch = 1000 * torch.rand(2, 3, 32, 32), torch.randint(2, (2, 1, 32, 32)).float()
    list(train_unet.train_steps(model, [batch], optimizer, scheduler))
    moved = (torch.nn.utils.parameters_to_vector(model.parameters()) - before).norm()
    assert 0.9 < moved < 1.01


class Scale(torch.nn.Module):
    """Scores that are the red channel times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.weight * images[:, :1]


def test_each_step_follows_the_gradient_of_its_own_batch_alone():
    model = Scale()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    batches = [(torch.full((1, 3, 1, 1), red), torch.zeros(1, 1, 1, 1)) for red in (0.25, 0.5)]
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    list(train_unet.train_steps(model, batches, optimizer, constant, loss_function=lambda scores, _: scores.sum()))
    assert model.weight.item() == 1 - 0.25 - 0.5


def test_the_loss_is_computed_in_float32_however_the_network_computes(monkeypatch):
    monkeypatch.setattr(train_unet, "has_bfloat16", lambda device: True)
    types, model = [], UNet(3, 1, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = torch.rand(1, 3, 16, 16), torch.ones(1, 1, 16, 16)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer)
    loss = lambda scores, masks: types.append(scores.dtype) or scores.mean()  # noqa: E731
    list(train_unet.train_steps(model, [batch], optimizer, constant, loss_function=loss))
    assert types == [torch.float32]


def start_training(steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    settings = {"seed": 0, "base_channels": 2, "lr": 0.003}
    return train_unet.begin_training(settings, None, steps, torch.device("cpu"))[1:]


def test_the_weights_decay_as_the_report_says():
    assert [group["weight_decay"] for group in start_training(100)[0].param_groups] == [0.01]


def test_the_learning_rate_rises_in_the_first_twentieth_of_the_steps_and_then_falls():
    optimizer, scheduler = start_training(100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates.index(max(rates)) == 4 and max(rates) == pytest.approx(0.003)
    assert rates == sorted(rates[:5]) + sorted(rates[5:], reverse=True)


@pytest.mark.parametrize("steps", [1, 10, 20, 40])
def test_a_training_may_have_any_number_of_steps(steps):
    """PyTorch's OneCycleLR divides by zero when its warm-up is one step exactly."""
    optimizer, scheduler = start_training(steps)
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    assert 0 < optimizer.param_groups[0]["lr"] < 0.003


def test_the_momentum_stays_while_the_learning_rate_changes():
    optimizer, scheduler = start_training(100)
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)


@pytest.mark.parametrize(
    ("capabilities", "has"),
    [({"avx2": True}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({}, False)],
    ids=["none of them", "AVX-512", "AMX", "unknown"],
)
def test_a_cpu_trains_in_bfloat16_if_it_has_the_instructions(monkeypatch, capabilities, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    types = []
    model = UNet(3, 1, 2)
    model.final_conv.register_forward_hook(lambda _, __, scores: types.append(scores.dtype))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    list(train_unet.train_steps(model, [(torch.rand(1, 3, 16, 16), torch.ones(1, 1, 16, 16))], optimizer, scheduler))
    assert types == [torch.bfloat16 if has else torch.float32]


@pytest.mark.parametrize(("device", "processes", "workers"), [("cpu", 1, 0), ("cuda", 1, 8), ("cuda", 4, 3)])
def test_a_gpu_gets_processes_that_load_its_photographs(monkeypatch, device, processes, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert train_unet.default_workers(torch.device(device)) == workers


def test_the_workers_that_are_asked_for_load_the_photographs(data, tmp_path, monkeypatch):
    loaders, loader = [], train_unet.DataLoader
    monkeypatch.setattr(
        train_unet, "DataLoader", lambda *args, **options: loaders.append(options) or loader(*args, **options)
    )
    only_train(monkeypatch)
    run_main(monkeypatch, "--data", data, "--out", tmp_path, *SMALL, "--stages", "32:1:8", "--workers", "1")
    assert [(options["num_workers"], options["pin_memory"]) for options in loaders] == [(1, False)]


def test_a_loss_that_is_no_number_stops_at_once_and_says_where(data, tmp_path, monkeypatch):
    whole_loss, count = train_unet.segmentation_loss, iter(range(100))
    monkeypatch.setattr(
        train_unet, "segmentation_loss", lambda *args: whole_loss(*args) * (torch.nan if next(count) == 5 else 1)
    )
    error = error_of(monkeypatch, "--data", data, "--out", tmp_path, *SMALL, "--stages", "32:3:2")
    assert re.search(r"the loss became nan at epoch 2, step 2, learning rate [\d.e-]+:", error)
    assert next(count) == 6
    assert len(torch.load(tmp_path / "checkpoint.pth", weights_only=True)["losses"]) == 4


def test_a_gradient_that_is_no_number_leaves_the_weights_as_they_were(data, tmp_path, monkeypatch):
    """The loss can be finite all the same: the slope of the square root at 0 is not."""
    whole_loss, count = train_unet.segmentation_loss, iter(range(100))
    monkeypatch.setattr(
        train_unet,
        "segmentation_loss",
        lambda scores, masks: whole_loss(scores, masks) + ((0 * scores.sum()).sqrt() if next(count) == 5 else 0),
    )
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    error = error_of(monkeypatch, "--data", data, "--out", tmp_path, *SMALL, "--stages", "32:3:2")
    assert "the gradient became nan at epoch 2, step 2" in error
    checkpoint = torch.load(tmp_path / "checkpoint.pth", weights_only=True)
    assert checkpoint["steps_done"] == 1 and all(value.isfinite().all() for value in checkpoint["model"].values())


def test_weights_that_became_infinite_in_the_last_step_are_not_kept(data, tmp_path, monkeypatch):
    def last_step_diverges(net, *_):
        yield 0.5
        torch.nn.init.constant_(net.final_conv.bias, torch.inf)

    monkeypatch.setattr(train_unet, "train_steps", last_step_diverges)
    error = error_of(monkeypatch, "--data", data, "--out", tmp_path, *SMALL, "--stages", "32:1:8")
    assert "weights became infinite at the end of epoch 1" in error
    assert not (tmp_path / "best.pth").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_photograph_that_vanishes_during_the_training_is_named_in_one_line(own_data, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(carvana, "CACHE_BYTES", 0)
    monkeypatch.setattr(train_unet, "find_pairs", lambda *_, **__: vanishing)
    vanishing = find_pairs(own_data)
    photo = split_by_car(vanishing, 1, 0)[0][0][0]
    monkeypatch.setattr(train_unet, "shape_for", lambda *_: photo.unlink(missing_ok=True) or (32, 48))
    words = [*SMALL, "--stages", "32:1:1", "--workers", workers]
    error = error_of(monkeypatch, "--data", own_data, "--out", tmp_path / "run", *words)
    assert error == f"error: there is no picture {photo}"


def test_too_little_memory_is_told_in_one_line(data, tmp_path, monkeypatch):
    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(train_unet, "segmentation_loss", no_memory)
    error = error_of(monkeypatch, "--data", data, "--out", tmp_path, *SMALL, "--stages", "32:1:8")
    assert error == "error: not enough memory: choose a smaller --batch-size, --size or --base-channels"


def test_a_full_disk_is_told_and_the_last_checkpoint_stays(data, tmp_path, monkeypatch):
    write_rows, count = training.write_rows, iter(range(100))

    def full_disk(path, rows):
        if next(count) == 2:  # the losses of the second epoch, after its checkpoint
            raise OSError(28, f"cannot write {path}: No space left on device")
        write_rows(path, rows)

    monkeypatch.setattr(training, "write_rows", full_disk)
    error = error_of(monkeypatch, "--data", data, "--out", tmp_path, *SMALL, "--stages", "32:3:8")
    assert re.search(r"cannot write .*losses.csv: No space left on device \(the last good checkpoint", error)
    assert len(torch.load(tmp_path / "checkpoint.pth", weights_only=True)["history"]) == 2


# Stopping and going on, as real processes


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(start, data, finished_run, tmp_path):
    whole, _ = finished_run
    out, rng = tmp_path / "killed", random.Random(0)
    words = ["--data", data, *SMALL, "--stages", STAGES, "--out", out, "--resume"]
    again = unet(*words, prepare=checkpoint_each_step)

    def steps() -> int:
        return len((out / "losses.csv").read_text().splitlines()) if (out / "losses.csv").exists() else 0

    for _ in range(2):
        before, process = steps(), start(tmp_path, again)
        while steps() == before and process.is_alive():
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert ended(start(tmp_path, again), tmp_path)[::2] == (0, "")
    for name in ("best.pth", "model.pth", "losses.csv", "scores.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    without_seconds = [[{**row, "seconds": 0} for row in rows_of(run / "history.csv")] for run in (out, whole)]
    assert without_seconds[0] == without_seconds[1]


def go_slowly() -> None:
    """Makes each step last, so that the run is still there when it is to be stopped."""
    checkpoint_each_step()
    loss = train_unet.segmentation_loss
    train_unet.segmentation_loss = lambda *args: time.sleep(0.1) or loss(*args)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_says_how_to_go_on_and_that_works(start, data, tmp_path, monkeypatch, capsys):
    words = ["--data", data, *SMALL, "--stages", "32:3:2", "--workers", "1"]
    process = start(tmp_path, unet(*words, prepare=go_slowly))
    while not list(tmp_path.glob("runs/*/checkpoint.pth")) and process.is_alive():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    status, _, errors = ended(process, tmp_path)
    assert status == 130
    (out,) = tmp_path.glob("runs/*")
    again = re.search("^Stopped. To go on: the same command with (.+)$", errors, re.MULTILINE)[1]
    assert again == f"--out {out.relative_to(tmp_path)} --resume"
    monkeypatch.chdir(tmp_path)
    run_main(monkeypatch, *words, *again.split())
    said = capsys.readouterr().out
    assert said.startswith(f"Going on with {out.relative_to(tmp_path)} after epoch ")
    assert "Report cars: " in said


# Several processes

FLOAT32 = """
import torch, train_unet
train_unet.has_bfloat16 = lambda device: False
if __name__ == "__main__":
    train_unet.main()
"""


@pytest.fixture(scope="module")
def run_of_two(data, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A run of two processes, as `torchrun` starts them, in float32: bfloat16 rounds by more than 1e-4."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "driver.py").write_text(FLOAT32)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", folder / "driver.py"]
    words = ["--data", data, *SMALL, "--stages", SHORT, "--out", folder / "run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    options = {"env": environment, "capture_output": True, "text": True, "timeout": 200}
    return folder / "run", subprocess.run([*torchrun, *words], **options)


def test_two_processes_train_as_one_does(run_of_two, data, tmp_path, monkeypatch):
    monkeypatch.setattr(train_unet, "has_bfloat16", lambda device: False)
    only_train(monkeypatch)
    run_main(monkeypatch, "--data", data, *SMALL, "--stages", SHORT, "--out", tmp_path)
    one, two = ([float(row["loss"]) for row in rows_of(out / "losses.csv")] for out in (tmp_path, run_of_two[0]))
    assert len(two) == len(one)
    assert two[:5] == pytest.approx(one[:5], abs=1e-4)


def test_only_one_of_two_processes_speaks(run_of_two):
    out, done = run_of_two
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 6 and lines[1] == f"Using device cpu, writing to {out}"


def test_two_processes_both_end_when_the_run_is_finished(start_two, run_of_two, data):
    out, _ = run_of_two
    again = unet("--data", data, "--out", out, "--device", "cpu", "--resume")
    said = f"{out} is finished: all its 3 epochs are done. Nothing to do.\n"
    assert start_two(again, again) == [Ended(0, said, ""), Ended(0, "", "")]


def test_each_machine_reads_its_own_folder(start_two, data, tmp_path):
    shutil.copytree(data, tmp_path / "here")
    shutil.copytree(data, tmp_path / "there")
    words = [*SMALL, "--stages", "32:1:8", "--out", tmp_path / "run"]
    ends = start_two(*(unet("--data", tmp_path / place, *words) for place in ("here", "there")), machines=2)
    assert [end.status for end in ends] == [0, 0]
    assert "Report cars: " in ends[0].out and ends[1].out == ""


def test_other_photographs_on_the_second_machine_are_told_once(start_two, data, own_data, tmp_path):
    words = [*SMALL, "--stages", "32:1:8", "--out", tmp_path / "run"]
    ends = start_two(*(unet("--data", folder, *words) for folder in (data, own_data)), machines=2)
    assert [end.status for end in ends] == [1, 1]
    errors = re.findall("^error: .*", ends[0].error + ends[1].error, re.MULTILINE)
    assert errors == ["error: the photographs in --data and --extra are not the same on all machines"]
    assert not (tmp_path / "run").exists()


def check_slowly() -> None:
    look_at = carvana.look_at
    carvana.look_at = lambda pair: time.sleep(0.5) or look_at(pair)


def test_an_error_is_told_once_however_long_the_first_process_needs_to_find_it(start_two, own_data, tmp_path):
    no_mask(own_data)
    words = ["--data", own_data, "--device", "cpu", "--out", tmp_path / "run"]
    ends = start_two(*[unet(*words, prepare=check_slowly)] * 2)
    assert [end.status for end in ends] == [1, 1]
    assert len(re.findall("^error: 1 fault in the pictures", ends[0].error + ends[1].error, re.MULTILINE)) == 1
    assert "ca0000000001_01.png: no mask in" in ends[0].error
    assert not (tmp_path / "run").exists()


def test_an_odd_batch_is_not_shared_by_two_processes(data):
    settings = {**DEFAULTS, "val_cars": 1, "stages": "32:1:3"}
    train_unet.check_fit(settings, find_pairs(data), [], ranks=1)
    with pytest.raises(ValueError, match="^a batch of 3 cannot be shared equally by 2 processes$"):
        train_unet.check_fit(settings, find_pairs(data), [], ranks=2)
