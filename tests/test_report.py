"""The texts say what the files under report/results/ say, and experiments keep every training that was finished."""

import argparse
import csv
import itertools
import json
import math
import re
import shutil
import subprocess
import sys
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import Subset
from torchvision.datasets import MNIST

import infer_unet
import train_lenet
import train_unet
from labs.cifar10 import __main__ as cifar10
from lenet import LeNet5, LeNet5Original, original_loss
from pictures import open_photograph, read_mask
from report import (
    benchmark,
    best,
    draw_car,
    experiments,
    figures,
    fill,
    handin,
    harness,
    lenet_experiments,
    lenet_runs,
    tables,
    unet_experiments,
    unet_recipe,
    unet_scores,
    unknown,
)
from report.tables import by_unit, interval, means, paired, read_rows, student_t
from training import ROOT, write_rows
from unet import UNet, load_unet

HISTORY = ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"]


def write_table(path: Path, columns: list[str], rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


# The numbers in the texts


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """A folder of made-up results: scores.json, runs.csv, and best.csv of one row."""
    numbers = {"cars": {"dice": 0.99036, "photographs": 1224}, "speeds": [{"median": 2.5, "min": 2, "max": 3}]}
    (tmp_path / "scores.json").write_text(json.dumps({**numbers, "left_out": None}), encoding="utf-8")
    rows = [["modern", 0, 0.994, ""], ["modern", 1, 0.995, 3], ["original", 0, 0.99, 4]]
    write_table(tmp_path / "runs.csv", ["network", "seed", "accuracy", "gain"], rows)
    write_table(tmp_path / "best.csv", ["accuracy"], [[0.995]])
    monkeypatch.setattr(fill, "RESULTS", tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", fill.texts(), ids=lambda path: str(path.relative_to(fill.ROOT)))
def test_a_text_agrees_with_the_results(path):
    _, changes, errors = fill.fill(path.read_text(encoding="utf-8"))
    assert (changes, errors) == ([], [])


@pytest.mark.parametrize("path", fill.texts(), ids=lambda path: str(path.relative_to(fill.ROOT)))
def test_no_line_begins_with_a_number(path):
    """Markdown takes a line that begins with a comment for HTML, and shows what follows as it is."""
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"^\s*(?:[>*+-]\s+)?<!-- \S+ [^>]*-->\S.*", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("source", "number"),
    [
        ("scores.json cars.dice .4f", "0.9904"),
        ("scores.json cars.photographs ,", "1,224"),
        ("scores.json cars.photographs", "1224"),
        ("scores.json speeds.0 {min:.1f} to {max:.1f}", "2.0 to 3.0"),
        ("scores.json left_out .2f", "–"),
        ("best.csv accuracy .2%", "99.50%"),
        ("runs.csv network=modern seed=1 accuracy .1%", "99.5%"),
        ("runs.csv network=modern seed=1 {accuracy:.2f}, {gain}", "0.99, 3"),
    ],
)
def test_a_marker_names_its_file_its_entry_and_its_format(results, source, number):
    text, changes, errors = fill.fill(f"Here: <!-- {source} -->?<!-- / -->.")
    assert text == f"Here: <!-- {source} -->{number}<!-- / -->."
    assert (len(changes), errors) == (1, [])


def test_a_text_that_agrees_is_left_as_it_is(results):
    text = "Dice <!-- scores.json cars.dice .2f -->0.99<!-- / -->."
    assert fill.fill(text) == (text, [], [])


def test_a_changed_result_is_noticed(results):
    (results / "scores.json").write_text('{"cars": {"dice": 0.98}}')
    text = "<!-- scores.json cars.dice .2f -->0.99<!-- / -->"
    assert fill.fill(text)[1] == ["scores.json cars.dice .2f is '0.99', the file says '0.98'"]


TABLE = "<!-- runs.csv {} -->\n\n| Saat | Genauigkeit |\n|---|--:|\n{}\n<!-- / -->"


@pytest.mark.parametrize(
    ("source", "old", "new"),
    [
        ("network=modern | {seed} | {accuracy:.1%} |", "| old |\n", "| 0 | 99.4% |\n| 1 | 99.5% |\n"),
        ("| {network} {seed} | {gain} |", "", "| modern 0 | – |\n| modern 1 | 3 |\n| original 0 | 4 |\n"),
        ("network=modern seed=1 | * | {gain:.1f} |", "| die zweite | ? |\n", "| die zweite | 3.0 |\n"),
    ],
    ids=["some rows", "all rows", "a cell of the text's own"],
)
def test_a_table_keeps_its_heading_and_gets_the_rows_of_the_file(results, source, old, new):
    text, _, errors = fill.fill(TABLE.format(source, old))
    assert (text, errors) == (TABLE.format(source, new), [])


@pytest.mark.parametrize("entries", ["cars", "cars.hard cars.easy"])
def test_a_tables_rows_may_be_the_entries_of_a_json_file(tmp_path, monkeypatch, entries):
    monkeypatch.setattr(fill, "RESULTS", tmp_path)
    tables.write_json(tmp_path / "scores.json", {"cars": {"hard": {"dice": 0.9}, "easy": {"dice": 0.98}}})
    text = (
        f"<!-- scores.json {entries} | * | {{dice:.0%}} | -->\n\n| | Dice |\n|---|--:|\n| a | |\n| b | |\n\n<!-- / -->"
    )
    filled, _, errors = fill.fill(text)
    assert "| a | 90% |\n| b | 98% |" in filled and not errors


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<!-- scores.json cars.diec .4f -->1<!-- / -->", "KeyError: 'diec'"),
        ("<!-- nothing.json cars.dice .4f -->1<!-- / -->", "nothing.json cars.dice .4f: FileNotFoundError"),
        ("<!-- scores.json cars.dice .4y -->1<!-- / -->", "ValueError: Unknown format code"),
        ("<!-- runs.csv seed d -->1<!-- / -->", "ValueError: too many values to unpack"),
        ("<!-- runs.csv | {seed} | -->none<!-- / -->", "a table needs its heading"),
        ("<!-- runs.csv | {sede} | -->\n| a |\n|---|\n<!-- / -->", "KeyError: 'sede'"),
        ("<!-- runs.csv network=other | {seed} | -->\n| a |\n|---|\n<!-- / -->", "the file has 0 such rows"),
        ("<!-- runs.csv | * | {seed} | -->\n| a | b |\n|---|---|\n| c | 1 |\n<!-- / -->", "3 such rows, the text 1"),
        ("<!-- scores.json cars.dice .4f -->99% and <!-- / -->60<!-- / -->", "<!-- / --> has no partner"),
        ("<!-- scores.json cars.dice .4f -->99%", "<!-- scores.json cars.dice .4f --> has no partner"),
    ],
)
def test_what_cannot_be_filled_in_is_an_error_and_stays(results, text, error):
    filled, _, errors = fill.fill(text)
    assert error in errors[0]
    assert fill.STRAY.sub("", filled) == fill.STRAY.sub("", text) or "has no partner" in error


def test_check_changes_nothing_and_exits_with_1(results, tmp_path, monkeypatch, capsys):
    text = "<!-- scores.json cars.dice .2f -->0.98<!-- / -->"
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    monkeypatch.setattr(fill, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["fill", "--check"])
    with pytest.raises(SystemExit) as exit:
        fill.main()
    assert exit.value.code == 1
    assert capsys.readouterr().out == "README.md: scores.json cars.dice .2f is '0.98', the file says '0.99'\n"
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text


def scores() -> dict:
    return json.loads((fill.RESULTS / "unet" / "scores.json").read_text(encoding="utf-8"))


def test_the_line_in_train_lenets_docstring_is_that_of_the_run_in_the_report():
    last = read_rows(fill.RESULTS / "lenet" / "modern-seed0.csv")[-1]
    train, test = float(last["train_accuracy"]), float(last["test_accuracy"])
    losses = f"train loss {float(last['train_loss']):.4f}, train accuracy {train:.2%}, test accuracy {test:.2%}"
    assert f"epoch 10/10: {losses}, ... s" in train_lenet.__doc__
    assert f"Test accuracy: {test:.2%} ({10_000 * test:.0f}/10000)" in train_lenet.__doc__


def test_the_line_in_train_unets_docstring_is_that_of_the_shipped_model():
    cars = scores()["report_cars"]
    line = f"Dice {cars['dice']:.4f}, Jaccard {cars['jaccard']:.4f}, lowest Dice {cars['dice_worst']:.4f}"
    assert f"Report cars: {line} (photographs: {cars['photographs']}, cars: {cars['cars']})" in train_unet.__doc__


def test_the_line_in_cifar10s_docstring_is_that_of_the_fast_training():
    right = json.loads((fill.RESULTS / "labs" / "cifar10_fast.json").read_text())
    ways = f"plain {right['plain']:.2%}, with mirror images {right['mirrored']:.2%}, with shifted copies too"
    line = f"Test accuracy: {right['accuracy']:.2%} ({10_000 * right['accuracy']:.0f}/10000); {ways}"
    assert f"{line} {right['copies']:.2%}" in cifar10.__doc__


def test_the_line_in_infer_unets_docstring_is_what_it_prints(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.png"
    monkeypatch.chdir(fill.ROOT)
    monkeypatch.setattr(sys, "argv", ["infer_unet.py", "car.jpg", str(out), "--device", "cpu"])
    infer_unet.main()
    assert capsys.readouterr().out.replace(str(out), "out.png") in infer_unet.__doc__


def readmes_python() -> list[str]:
    """The README's blocks of Python, in their order."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_readmes_lines_of_python_read_a_digit(tmp_path, monkeypatch, capsys):
    code, _ = readmes_python()
    run = tmp_path / "runs" / "lenet-DATE-TIME"
    run.mkdir(parents=True)
    torch.save(train_lenet.LeNet5().state_dict(), run / "lenet.pth")
    (tmp_path / "data").symlink_to(fill.ROOT / "data")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert re.fullmatch(r"read \d is 7\n", capsys.readouterr().out)


def test_the_readmes_data_loader_trains_without_a_network(tmp_path, monkeypatch, capsys):
    """On few digits, and in a copy: torchvision unpacks the archives where they lie."""

    def no_network(*_, **__):
        raise URLError("no network")

    def few(*args, **options) -> Subset:
        return Subset(MNIST(*args, **options), range(1000))

    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in (ROOT / "data" / "MNIST" / "raw").glob("*.gz"):
        shutil.copy(archive, raw)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setattr(torchvision.datasets, "MNIST", few)
    torch.manual_seed(0)
    exec(readmes_python()[1], {})
    (share,) = re.fullmatch(r"Test accuracy: (\d\d\.\d\d)%\n", capsys.readouterr().out).groups()
    assert float(share) > 50


@pytest.mark.parametrize(("name", "words"), [("README.md", "its {} mistakes"), ("README.zh-CN.md", "认错的 {} 个")])
def test_the_mistakes_under_the_readmes_picture_are_counted(name, words):
    _, labels = train_lenet.load_mnist(ROOT / "data", train=False)
    read = figures.READ.read_text().replace("\n", "")
    wrong = sum(int(digit) != label for digit, label in zip(read, labels.tolist(), strict=True))
    assert words.format(wrong) in (ROOT / name).read_text(encoding="utf-8")


def source(folder: Path) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in folder.glob("**/*.py"))


def test_every_result_is_written_by_a_command():
    """Its name stands in the code; of an experiment, a run, another machine or a lab, that which it is made up from."""
    known = {f"experiments/{name}{part}.csv" for name in experiments.EXPERIMENTS for part in ("", "_curves", "_means")}
    known |= {f"lenet/{name}.csv" for runs in lenet_runs.RUNS.values() for name in runs}
    known |= {path.replace(".json", "_epyc.json") for path in benchmark.FILES.values()}
    labs = [lab.name for lab in (ROOT / "labs").iterdir() if 'RESULTS / "labs" / f"' in source(lab)]
    files = {path.relative_to(tables.RESULTS).as_posix() for path in tables.RESULTS.glob("**/*.*")}
    code = source(ROOT / "report") + source(ROOT / "labs")
    unknown = {name for name in files - known if Path(name).name not in code}
    assert not {name for name in unknown if not name.startswith(tuple(f"labs/{lab}" for lab in labs))}


def test_every_result_of_the_u_net_is_read_by_a_text_or_by_code():
    readers = "".join(path.read_text(encoding="utf-8") for path in fill.texts()) + source(ROOT / "report")
    assert not [path.name for path in (tables.RESULTS / "unet").iterdir() if path.name not in readers]


# Means, intervals, and going on


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    {
        1: 12.7062,
        2: 4.3027,
        3: 3.1824,
        4: 2.7764,
        5: 2.5706,
        6: 2.4469,
        9: 2.2622,
        10: 2.2281,
        11: 2.2010,
        14: 2.1448,
    }.items()
    | {15: 2.1314, 20: 2.0860, 29: 2.0452, 30: 2.0423, 40: 2.0211, 59: 2.0010, 60: 2.0003, 1000: 1.9623}.items(),
)
def test_students_t_is_that_of_the_tables_at_every_count(freedom, quantile):
    assert student_t(freedom) == pytest.approx(quantile, abs=6e-5)


def test_students_t_falls_with_every_run_more():
    quantiles = [student_t(freedom) for freedom in range(1, 200)]
    assert quantiles == sorted(quantiles, reverse=True)
    assert quantiles[-1] > 1.96  # the normal distribution's


def test_an_interval_holds_the_true_mean_of_twelve_runs_95_times_of_100():
    draws = torch.randn(4000, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inside = [abs(mean) <= half for mean, half in map(interval, draws.tolist())]
    assert 0.94 < sum(inside) / len(inside) < 0.96


def test_one_run_has_no_interval():
    assert interval([0.5]) == (0.5, None)


CARS = [
    {"size": size, "car": car, "photograph": f"{car}_0{view}.jpg", "dice": str(dice + view / 1000)}
    for size, dices in {"572": (0.99, 0.97), "720": (0.995, 0.971)}.items()
    for car, dice in zip(("a", "b"), dices, strict=True)
    for view in range(4)
]


def test_photographs_of_one_car_are_one_car():
    first, second = means(CARS, ["size", "car", "photograph"], base={"size": "572"})
    assert (first["size"], first["count"]) == ("572", 2)
    assert first["dice"] == pytest.approx(0.9815)
    assert first["dice_interval"] == pytest.approx(12.7062 * 0.01, rel=1e-4)
    assert first["dice_gain"] is None
    assert second["dice_gain"] == pytest.approx(0.003)
    assert second["dice_gain_interval"] == pytest.approx(12.7062 * 0.002, rel=1e-4)  # 0.005 and 0.001


def test_what_one_gains_over_another_is_told_of_what_both_have():
    gains = paired({"a": 0.9, "b": 0.5, "c": 0.7}, {"a": 0.8, "b": 0.4, "d": 0.1})
    assert gains == {"gain": pytest.approx(0.1), "gain_interval": pytest.approx(0, abs=1e-12), "better": 2}


def test_a_seed_on_each_fold_is_a_unit():
    rows = [{"seed": seed, "fold": fold, "dice": "0.5"} for seed in "01" for fold in "012"]
    assert len(by_unit(rows, "dice")) == 6


def test_no_rows_yet_is_none_or_an_error_where_they_are_needed(tmp_path):
    assert read_rows(tmp_path / "a.csv") == []
    with pytest.raises(ValueError, match="there is no .*a.csv: make the runs first"):
        read_rows(tmp_path / "a.csv", needed=True)


def test_another_kind_of_file_is_no_table(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xd8")
    with pytest.raises(ValueError, match="a.csv is no CSV file: "):
        read_rows(tmp_path / "a.csv")


def test_curves_of_a_training_that_is_made_again_take_the_place_of_the_old(tmp_path):
    path = tmp_path / "a_curves.csv"
    for loss in (1.0, 0.5):
        for seed in (0, 1):
            tables.keep_curves(path, {"seed": seed}, [{"epoch": 1, "loss": loss + seed}])
    assert [(row["seed"], row["loss"]) for row in read_rows(path)] == [("0", "0.5"), ("1", "1.5")]


# How the commands end


@pytest.mark.parametrize(
    ("module", "arguments", "work"),
    [
        (experiments, ["missed"], "run"),
        (lenet_runs, ["results"], "run"),
        (benchmark, ["start"], "benchmark_start"),
        (figures, ["both"], "draw"),
        (fill, ["--check"], "fill"),
        (unet_scores, ["--longer", "a"], "score_longer"),
        (draw_car, [], "draw_car"),
        (handin, ["--id=1", "--name=A"], "make_page"),
    ],
    ids=lambda value: value.__name__ if hasattr(value, "__name__") else "",
)
def test_ctrl_c_ends_a_command_without_a_traceback(monkeypatch, module, arguments, work):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, work, stop)
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    with pytest.raises(SystemExit) as exit:
        module.main()
    assert exit.value.code == 130


@pytest.mark.parametrize(("module", "name"), [(experiments, "missed"), (figures, "missed"), (benchmark, "lenet")])
def test_without_mnist_a_command_ends_with_one_line(few_digits, tmp_path, monkeypatch, module, name):
    for part in (lenet_experiments, figures, benchmark):
        monkeypatch.setattr(part, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(figures, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", [module.__name__, name])
    with pytest.raises(SystemExit, match=r"^error: .*$"):
        module.main()


def test_a_run_of_lenet_that_fails_has_said_why_itself(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 2))
    monkeypatch.setattr(sys, "argv", ["lenet_runs", "results"])
    with pytest.raises(SystemExit) as exit:
        lenet_runs.main()
    assert exit.value.code == 2  # that of train_lenet.py


# LeNet-5's trainings


def test_what_the_texts_say_of_the_seeds_is_read_from_their_last_epochs(tmp_path, monkeypatch):
    monkeypatch.setattr(lenet_runs, "RESULTS", tmp_path)
    for name in [name for runs in lenet_runs.RUNS.values() for name in runs]:
        accuracy = (0.994 if name.endswith("seed0") else 0.995) - 0.001 * name.startswith("original-10")
        kind = "validation" if name.startswith("recipe") else "test"
        columns = [column.replace("test", kind) for column in HISTORY]
        rows = [[1, 0.1, 0.98, 0.03, 0.999, 9.0], [2, 0.05, 0.99, 0.02, accuracy, 9.0]]
        write_table(tmp_path / f"{name}.csv", columns, rows)
    lenet_runs.summarize()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["modern"]["parameters"] == 61_706 and summary["original"]["parameters"] == 60_000
    assert summary["modern"]["mean"] == pytest.approx(0.9948)
    assert summary["modern"]["deviation_points"] == pytest.approx(100 * 0.001 * 0.2**0.5)
    assert [row["wrong"] for row in read_rows(tmp_path / "seeds.csv")] == ["60", "50", "50", "50", "50"] * 2
    assert summary["gain_at_equal_epochs"] == {"10": pytest.approx(0.1), "20": pytest.approx(0)}
    assert [float(row["gain_interval"]) for row in read_rows(tmp_path / "epochs.csv")] == pytest.approx([0, 0])
    assert len(read_rows(tmp_path / "recipe.csv")) == len(lenet_runs.RUNS["recipe"])
    assert [row["layer"] for row in read_rows(tmp_path / "layers.csv")] == list(lenet_runs.MAPS)


# Experiments


@pytest.fixture(params=[KeyboardInterrupt, tables.Stopped])
def coins(request, tmp_path, monkeypatch):
    """An experiment of two settings and two seeds whose third training is interrupted; what it ran is in `ran`."""
    ran = []

    def coin(args, rows):
        for sides in (2, 6):
            for seed in range(args.seeds):
                yield {"sides": sides, "seed": seed}, lambda sides=sides, seed=seed: toss(sides, seed)

    def toss(sides: int, seed: int) -> dict[str, float]:
        ran.append((sides, seed))
        if len(ran) == 3:
            raise request.param
        return {"accuracy": sides + seed, "seconds": 1.5}

    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setitem(experiments.EXPERIMENTS, "criterion", coin)
    monkeypatch.setitem(experiments.BASES, "criterion", {"sides": "2"})
    monkeypatch.setattr(sys, "argv", ["experiments", "criterion", "--seeds", "2"])
    return ran


def test_an_experiment_that_was_stopped_goes_on_after_its_last_row(coins, capsys):
    table = experiments.table_of("criterion")
    with pytest.raises(SystemExit) as stop:
        experiments.main()
    assert stop.value.code == 130
    assert capsys.readouterr().err == "\nStopped. The same command goes on.\n"
    assert len(read_rows(table)) == 2
    assert [row["count"] for row in read_rows(experiments.table_of("criterion_means"))] == ["2"]
    experiments.main()
    assert coins == [(2, 0), (2, 1), (6, 0), (6, 0), (6, 1)]
    assert [row["accuracy"] for row in read_rows(table)] == ["2", "3", "6", "7"]


@pytest.mark.parametrize("name", ["criterion", "means"])
def test_means_are_made_anew_where_nothing_is_left_to_train(coins, monkeypatch, name):
    with pytest.raises(SystemExit):
        experiments.main()
    experiments.main()
    path = experiments.table_of("criterion_means")
    path.unlink()
    monkeypatch.setattr(sys, "argv", ["experiments", name, "--seeds", "2"])
    experiments.main()
    first, second = read_rows(path)
    assert (first["sides"], first["count"], float(first["accuracy"])) == ("2", "2", 2.5)
    assert float(first["accuracy_interval"]) == pytest.approx(12.706 * 0.5, rel=1e-4)  # Student's t of one freedom
    assert (float(first["accuracy_low"]), float(first["accuracy_high"])) == (2, 3)
    assert (first["accuracy_gain"], float(second["accuracy_gain"])) == ("", 4)
    assert float(second["accuracy_gain_interval"]) == 0  # the same with both seeds
    assert len(coins) == 5


@pytest.mark.parametrize("name", [path.stem for path in (tables.RESULTS / "experiments").glob("*_means.csv")])
def test_the_means_in_the_repository_are_those_of_its_rows(tmp_path, monkeypatch, name):
    kept, name = experiments.table_of(name).read_bytes(), name.removesuffix("_means")
    (tmp_path / "experiments").mkdir()
    shutil.copy(experiments.table_of(name), tmp_path / "experiments")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    experiments.write_means(name)
    assert experiments.table_of(f"{name}_means").read_bytes() == kept


@cache
def load_few(root: Path, train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """300 digits of the training set, or 50 of the test set; MNIST is unpacked once for all tests."""
    images, labels = train_lenet.load_mnist(root, train)
    count = 300 if train else 50
    return images[:count].clone(), labels[:count].clone()


@pytest.fixture
def few_digits(tmp_path, monkeypatch) -> None:
    """Experiments on 300 training digits, 50 of them for validation, and 50 test digits; their runs go elsewhere."""
    for module in (lenet_experiments, best):
        monkeypatch.setattr(module, "load_mnist", load_few)
    monkeypatch.setattr(best, "EPOCHS", 2)
    monkeypatch.setattr(best, "TRIAL_EPOCHS", 1)
    monkeypatch.setattr(best, "WEIGHTS", tmp_path / "lenet.pth")
    monkeypatch.setattr(lenet_experiments, "TRAINING_DIGITS", 250)
    monkeypatch.setattr(unknown, "SHOWN", 25)
    monkeypatch.setattr(harness, "RUNS", tmp_path / "runs")
    for cached in (lenet_experiments.mnist, lenet_experiments.trained, best.fold, unknown.non_digits):
        cached.cache_clear()
    yield
    for cached in (lenet_experiments.mnist, lenet_experiments.trained, best.fold, unknown.non_digits):
        cached.cache_clear()


LENET_EXPERIMENTS = [name for name in experiments.EXPERIMENTS if not name.startswith("unet")]


@pytest.mark.parametrize("name", LENET_EXPERIMENTS)
def test_the_first_training_of_an_experiment_gives_numbers_and_again_the_same(few_digits, name):
    arguments = argparse.Namespace(seeds=1, data=None)
    settings, train = next(experiments.EXPERIMENTS[name](arguments, []))
    row = train()
    assert not set(settings) & set(row)
    shares = {key: value for key, value in row.items() if key.endswith("accuracy") or name == "unknown"}
    assert all(0 <= value <= 1 for value in shares.values() or [row["wrong"] / 100])
    again = next(experiments.EXPERIMENTS[name](arguments, []))[1]()  # from its checkpoint: nothing is left to train
    assert {**again, "seconds": 0} == {**row, "seconds": 0}


def test_a_training_that_was_stopped_is_gone_on_with_by_the_same_command(few_digits, monkeypatch):
    whole = lenet_experiments.outcome("whole", {"seed": 0}, epochs=2)
    train_epoch, calls = lenet_experiments.train_epoch, []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    monkeypatch.setattr(lenet_experiments, "train_epoch", stopped)
    with pytest.raises(tables.Stopped):
        lenet_experiments.outcome("stopped", {"seed": 0}, epochs=2)
    assert {**lenet_experiments.outcome("stopped", {"seed": 0}, epochs=2), "seconds": 0} == {**whole, "seconds": 0}
    assert len(calls) == 3


def test_a_training_that_diverges_ends_early_and_counts(few_digits):
    row = lenet_experiments.outcome("diverged", {"seed": 0}, lr=1e20, epochs=3)
    assert row["test_accuracy"] < 0.5


def test_the_folded_network_is_a_lenet5_that_gives_the_same_scores():
    torch.manual_seed(0)
    network, images = best.NormalizedLeNet5(), torch.rand(64, 1, 28, 28)
    for bias in (network.C1.bias, network.C3.bias, network.C5.bias, network.F6.bias):
        torch.nn.init.normal_(bias)
    for _ in range(30):
        network(images)  # learns the means and deviations
    network.eval()
    folded = network.folded()
    assert type(folded) is LeNet5
    assert torch.allclose(folded(images), network(images), atol=1e-4)


def test_the_average_follows_the_weights_and_is_what_is_evaluated():
    torch.manual_seed(0)
    network, images = best.Averaged(LeNet5()), torch.rand(2, 1, 28, 28)
    before = network.eval()(images)
    network.train()(images)
    with torch.no_grad():
        network.network.output.bias += 1
    assert torch.equal(network.eval()(images), before)
    network.train()
    for _ in range(10 * best.AVERAGED_STEPS):
        network.average.update_parameters(network.network)
    assert torch.allclose(network.eval()(images), before + 1, atol=1e-3)


def test_best_keeps_its_first_network_as_a_plain_lenet5(few_digits):
    _, train = next(best.best(argparse.Namespace(seeds=1), []))
    train()
    LeNet5().load_state_dict(torch.load(best.WEIGHTS, weights_only=True), strict=True)


def test_nine_looks_are_the_digit_in_its_place_and_moved_by_a_pixel_and_a_half():
    torch.manual_seed(0)
    network, images = LeNet5(), torch.zeros(1, 1, 28, 28)
    images[:, :, 10:18, 10:18] = 1
    seen = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    probabilities = best.NineLooks(network)(images).exp()
    ink = [(look.mean(dim=(0, 1)) * torch.arange(28.0)).sum().item() / 64 for look in seen]  # its middle column
    assert sorted({round(column, 2) for column in ink}) == [12.0, 13.5, 15.0]
    assert torch.allclose(probabilities, sum(network(look).softmax(dim=1) for look in list(seen)) / 9, atol=1e-6)


def test_bending_moves_the_ink_and_keeps_it():
    images = torch.zeros(200, 1, 28, 28)
    images[:, :, 8:20, 8:20] = 1
    bent = best.bend(images, torch.Generator().manual_seed(0))
    assert len(bent.unique(dim=0)) == 200
    assert (bent - images).abs().mean() > 0.02
    assert 0.9 < bent.sum() / images.sum() < 1.1


@torch.inference_mode()
@pytest.mark.parametrize("of_1998", [True, False])
def test_the_ladder_begins_and_ends_with_the_two_networks(of_1998):
    network = LeNet5Original() if of_1998 else LeNet5()
    rung = lenet_experiments.LadderNet(*[of_1998] * 5)
    state = network.state_dict()
    state["C5.weight"] = state["C5.weight"].view(120, 16, 5, 5)
    rung.load_state_dict(state)
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(rung(images), network(images), atol=1e-4)


def test_every_rung_of_the_ladder_has_one_change_more_than_the_one_before():
    rows: list[dict[str, str]] = []
    for settings, _ in lenet_experiments.ladder(argparse.Namespace(seeds=1), rows):
        rows.append({**{key: str(value) for key, value in settings.items()}, "validation_accuracy": "0.9"})
    changed = {
        order: list(dict.fromkeys(row["changed"] for row in rows if row["order"] == order))
        for order in ("forward", "backward")
    }
    assert changed["forward"] == ["nothing", *lenet_experiments.CHANGES]
    assert changed["backward"] == list(lenet_experiments.CHANGES[:0:-1])


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (0.02, [0.02, 0.01, 0.04]),
        (0.04, [0.02, 0.01, 0.04, 0.08]),
        (0.16, [0.02, 0.01, 0.04, 0.08, 0.16, 0.32]),
        (0.0025, [0.02, 0.01, 0.04, 0.005, 0.0025, 0.00125]),
    ],
)
def test_a_learning_rate_is_chosen_only_with_both_its_neighbours(best, tried):
    rates = list(harness.climb(0.02, lambda rate: -abs(math.log(rate / best)), choosing=3, seeds=5))
    assert rates == [*((rate, range(3)) for rate in tried), (best, range(3, 5))]


def attack(size: float, **how: Any) -> tuple[LeNet5, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model, images, labels = LeNet5(), torch.rand(8, 1, 28, 28), torch.arange(8)
    return model, images, lenet_experiments.attacked(model, images, labels, size, **how), labels


@pytest.mark.parametrize("loss", [torch.nn.functional.cross_entropy, lenet_experiments.lead])
@pytest.mark.parametrize("steps", [1, 20])
def test_an_attack_moves_no_pixel_farther_than_its_size_and_raises_the_loss(loss, steps):
    model, images, moved, labels = attack(0.1, loss=loss, steps=steps)
    assert (moved - images).abs().max() <= 0.1 + 1e-6
    assert 0 <= moved.min() and moved.max() <= 1
    assert loss(model(moved), labels) > loss(model(images), labels)


def test_many_small_steps_attack_better_than_one():
    lead = lenet_experiments.lead
    model, _, one, labels = attack(0.1, loss=lead)
    _, _, many, _ = attack(0.1, loss=lead, steps=20)
    assert lead(model(many), labels) > lead(model(one), labels)


def test_the_loss_of_a_certain_answer_has_no_slope_along_the_right_score_but_the_lead_has():
    """float32 cannot tell a probability of 1 - 1e-9 from 1."""
    scores, labels = torch.tensor([[21.0, 0.0, -1.0]], requires_grad=True), torch.tensor([0])
    (of_loss,) = torch.autograd.grad(torch.nn.functional.cross_entropy(scores, labels), scores)
    (of_lead,) = torch.autograd.grad(lenet_experiments.lead(scores, labels), scores)
    assert (of_loss[0, 0], of_lead[0, 0]) == (0, -1)
    assert of_loss[0, 1] > 0


def test_the_lead_is_that_of_the_best_wrong_score():
    scores = torch.tensor([[3.0, 1.0, 2.5], [0.0, 4.0, 1.0]])
    assert lenet_experiments.lead(scores, torch.tensor([0, 2])).item() == pytest.approx((-0.5 + 3) / 2)


# What is no digit


def test_a_threshold_refuses_the_share_that_it_should():
    sure = torch.randperm(1000).float()
    assert [(sure < unknown.threshold_of(sure, share)).sum().item() for share in (0.01, 0.1)] == [10, 100]


def test_printed_letters_lie_as_mnists_digits_do():
    square = torch.zeros(100, 100)
    square[10:40, 50:90] = 1
    digit = unknown.as_mnist(square)
    rows, columns = (
        torch.arange(28) * digit.sum(dim=1) / digit.sum(),
        torch.arange(28) * digit.sum(dim=0) / digit.sum(),
    )
    assert digit.shape == (28, 28) and digit.any(dim=0).sum() == 20
    assert (rows.sum().item(), columns.sum().item()) == pytest.approx((14, 14), abs=0.5)
    letters = unknown.printed_letters()
    assert letters.shape == (len(unknown.LETTERS) * len(unknown.FONTS) * unknown.COPIES, 1, 28, 28)
    assert letters.flatten(1).sum(dim=1).min() > 20  # none is empty


def test_the_floor_is_the_eleventh_answer_of_equation_9():
    """The criterion is the negative logarithm of a probability among eleven."""
    scores = -torch.rand(5, 10) * 100
    best = scores.argmax(dim=1)
    assert -unknown.with_floor(scores).log().mean() == pytest.approx(original_loss(scores, best).item(), rel=1e-4)


def test_what_is_shown_holds_no_turned_zero_and_no_digit_over_its_like():
    shown = unknown.non_digits()
    images, labels = lenet_experiments.mnist()["test"]
    first = images[labels != 0][0]
    assert torch.equal(shown["turned"][0], first.rot90(dims=(1, 2)))
    assert all((part >= 0).all() and (part <= 1).all() for part in shown.values())


def test_scores_that_are_stretched_put_the_roof_too_high_and_the_wheels_too_low():
    model, truth = load_unet(ROOT / "model.pth", harness.CPU), read_mask(unet_experiments.CAR_MASK)
    image = open_photograph(ROOT / "car.jpg").resize((858, 572))
    truth = np.asarray(Image.fromarray(truth).resize((858, 572)))
    found = {place: unet_experiments.mask_at(model, image, place) for place in ("padded", "centred", "stretched")}
    dice = {place: unet_experiments.dice_of(mask, truth) for place, mask in found.items()}
    shifts = {place: unet_experiments.outline_shift(mask, truth) for place, mask in found.items()}
    assert dice["padded"] > dice["centred"] > dice["stretched"] > 0.95
    assert abs(shifts["padded"]["roof"]) < 1 and abs(shifts["padded"]["wheels"]) < 1
    assert shifts["stretched"]["roof"] < -1 and shifts["stretched"]["wheels"] > 1


@pytest.fixture(scope="module")
def many_cars(tmp_path_factory) -> Path:
    """Thirty little pictures, each of another car; every fourth ends below in a dark edge."""
    data = tmp_path_factory.mktemp("cars")
    for folder in ("train", "train_masks"):
        (data / folder).mkdir()
    for car in range(30):
        picture = Image.new("RGB", (48, 32), (200, 200, 200))
        mask = Image.new("L", (48, 32))
        for image, color in ((picture, (30 + 5 * car, 20, 90)), (mask, 255)):
            image.paste(color, (10, 8, 30 + car // 3, 24))
        if car % 4 == 0:
            picture.paste((50, 50, 50), (0, 29, 48, 32))
        picture.save(data / "train" / f"ca00000000{car:02}_01.png")
        mask.save(data / "train_masks" / f"ca00000000{car:02}_01_mask.png")
    return data


def test_a_dark_edge_is_seen_and_as_many_cars_with_it_are_drawn_as_asked_for(many_cars, monkeypatch):
    pairs = unet_experiments.find_pairs(many_cars)
    monkeypatch.setattr(unet_experiments, "split_by_car", lambda *_, **__: (pairs[:20], pairs[20:25], pairs[25:]))
    small = unet_experiments.SmallTrainings("unet_edges", many_cars)
    training = {unet_experiments.car_of(pair) for pair in pairs[:20]}
    assert len(small.dark & training) == 5  # every fourth, see `many_cars`
    assert small.drawn(8, seed=0, dark=0).isdisjoint(small.dark)
    for dark in (1, 4):
        cars = small.drawn(8, seed=0, dark=dark)
        assert (len(cars), len(cars & small.dark)) == (8, dark)
        assert len(cars - small.dark - small.drawn(8, seed=0, dark=0)) == 0  # the others stay


@pytest.mark.parametrize(
    ("name", "part"), [("unet_rates", "selection"), ("unet_photographs", "report"), ("unet_edges", "report")]
)
def test_a_small_training_of_the_u_net_is_scored_car_by_car(many_cars, tmp_path, monkeypatch, name, part):
    monkeypatch.setattr(harness, "RUNS", tmp_path)
    monkeypatch.setattr(unet_experiments, "STEPS_IN_EQUAL_TIME", {8: (10, 20)})
    monkeypatch.setattr(unet_experiments, "BUDGETS", {10: (2,)})
    monkeypatch.setattr(unet_experiments, "CARS", (2,))
    monkeypatch.setattr(unet_experiments, "FEW", 1)
    monkeypatch.setattr(unet_experiments, "EDGES", (0,))
    trainings = experiments.EXPERIMENTS[name](argparse.Namespace(seeds=1, data=many_cars), [])
    rows = [(settings["car"], score()) for settings, score in itertools.islice(trainings, 4)]
    _, selection, report = unet_experiments.split_by_car(unet_experiments.find_pairs(many_cars), 14, seed=0)
    cars = {unet_experiments.car_of(pair) for pair in (selection if part == "selection" else report)}
    assert len({car for car, _ in rows} & cars) == 4
    assert all(list(row) == ["dice", "seconds"] and 0 <= row["dice"] <= 1 for _, row in rows)
    assert len(list((tmp_path / name).iterdir())) == 1  # one training for all of them


@pytest.mark.parametrize("trained", ["padded", "not padded"])
def test_both_ways_of_training_are_asked_in_three_ways(many_cars, tmp_path, monkeypatch, trained):
    monkeypatch.setattr(harness, "RUNS", tmp_path)
    for name, value in {"PLACE_STEPS": 10, "PLACE_SIZE": 32, "BATCH_SIZE": 1}.items():
        monkeypatch.setattr(unet_experiments, name, value)
    monkeypatch.setattr(unet_experiments, "PLACE_SHAPES", {"padded": (32, 48), "not padded": (40, 56)})
    trainings = unet_experiments.place(argparse.Namespace(seeds=1, data=many_cars), [])
    of_one_car = [(s, score) for s, score in trainings if s["trained"] == trained][::14]
    assert [settings["place"] for settings, _ in of_one_car] == ["padded", "centred", "stretched"]
    rows = [score() for _, score in of_one_car]
    assert all(list(row) == ["dice", "roof", "wheels"] and 0 <= row["dice"] <= 1 for row in rows)
    assert [path.name for path in (tmp_path / "unet_place").iterdir()] == [f"{trained}-0"]


def test_of_two_regions_the_larger_stays_alone():
    mask = np.zeros((9, 20), bool)
    mask[1:4, 1:4] = mask[2:8, 8:18] = mask[7, 7] = True  # the last touches the second at a corner
    large = mask.copy()
    large[1:4, 1:4] = False
    assert np.array_equal(unet_experiments.largest_region(mask), large)
    assert not unet_experiments.largest_region(np.zeros((4, 4), bool)).any()


def test_several_looks_are_averaged_each_in_its_place(many_cars, monkeypatch):
    monkeypatch.setattr(unet_experiments, "predict_scores", lambda model, image, size: bright(image, size))
    monkeypatch.setattr(unet_experiments, "load_unet", lambda *_: None)
    rows = unet_experiments.looks(argparse.Namespace(data=many_cars), [])
    scores = {settings["looks"]: score()["dice"] for settings, score in itertools.islice(rows, 5)}
    assert list(scores) == ["one", "mirrored too", "three sizes", "six", "one, largest region"]
    assert min(scores.values()) > 0.99


def bright(image: Image.Image, size: int) -> torch.Tensor:
    """High scores where a picture of `many_cars` shows its car."""
    grey = torch.from_numpy(np.array(image.convert("RGB"))[..., 1]).float()
    return (100 - grey)[None, None]


def test_a_mask_that_was_squashed_and_restored_is_nearly_itself(many_cars):
    ((_, score), *_) = unet_experiments.restored(argparse.Namespace(data=many_cars), [])
    assert 0.95 < score()["dice"] <= 1


@pytest.mark.parametrize("levers", ["nothing", "all", "context", "scores_and_masks"])
def test_what_a_training_was_helped_by_is_gone_in_the_end(many_cars, tmp_path, monkeypatch, levers):
    monkeypatch.setattr(harness, "RUNS", tmp_path)
    for name, value in {"SIZE": 32, "BATCH_SIZE": 2, "EPOCHS": 1}.items():
        monkeypatch.setattr(unet_recipe, name, value)
    scored = []
    monkeypatch.setattr(
        unet_recipe, "score_pictures", lambda model, *_: scored.append(model) or [{"dice": 0.5}, {"dice": 0.25}]
    )
    trainings = unet_recipe.recipe(argparse.Namespace(seeds=1, data=many_cars), [])
    train = next(train for settings, train in trainings if settings["levers"] == levers)
    assert train()["dice"] == 0.375
    assert list(scored[0].state_dict()) == list(UNet(3, 1, base_channels=1).state_dict())


def test_pixels_at_the_outline_weigh_more():
    masks = torch.zeros(1, 1, 20, 20)
    masks[..., 10:] = 1
    scores = torch.full_like(masks, -5.0) + 10 * masks
    losses = []
    for column in (2, 9):
        wrong = scores.clone()
        wrong[..., column] *= -1
        losses.append(unet_recipe.edge_loss(wrong, masks).item())
    assert losses[0] < losses[1]


def test_a_teacher_says_of_each_pixel_how_probably_it_is_car():
    certain = UNet(3, 1, base_channels=1)
    torch.nn.init.zeros_(certain.final_conv.weight)
    torch.nn.init.constant_(certain.final_conv.bias, 50.0)  # "car", whatever it sees
    batch = torch.rand(2, 3, 16, 16), torch.zeros(2, 1, 16, 16)
    _, targets = next(unet_recipe.taught(certain, [batch]))
    assert targets.flatten(2).unique(dim=2).tolist() == [[[0], [1]], [[0], [1]]]


def test_a_pupil_learns_masks_in_dice_and_scores_in_the_cross_entropy():
    scores, masks, said = torch.randn(3, 2, 1, 16, 16)
    masks, said = (masks > 0).float(), torch.sigmoid(said)
    loss = unet_recipe.taught_loss(scores, torch.cat([masks, said], 1), masks_shares=(0.0, 1.0))
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits(scores, said)
    dice = train_unet.dice_coefficient(torch.sigmoid(scores), masks).mean()
    torch.testing.assert_close(loss, cross_entropy + 1 - dice)


def test_no_network_finds_more_than_resizing_leaves(many_cars):
    settings, score = next(unet_experiments.size(argparse.Namespace(data=many_cars), []))
    row = score()
    assert settings["short_side"] == 144 and row["ceiling"] == 1  # the pictures are smaller than the input
    assert 0 <= row["dice"] <= 1


# The U-Net's scores


def test_the_histories_of_two_trainings_become_one(tmp_path):
    for name in ("a", "b"):
        write_table(tmp_path / name / "losses.csv", ["step", "epoch", "loss"], [[1, 1, 0.5], [2, 1, 0.4]])
    rows = unet_scores.joined([tmp_path / "a", tmp_path / "b"], "losses.csv", ("step", "epoch"))
    assert [(row["run"], row["step"], row["epoch"]) for row in rows] == [(1, 1, 1), (1, 2, 1), (2, 3, 2), (2, 4, 2)]


def a_run(folder: Path, scores: list[list[object]] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"model": None, "stages": "572:2:2", "base_channels": 16, "photographs": "12 with checksum 0"}
    torch.save({"settings": settings}, folder / "checkpoint.pth")
    write_table(folder / "scores.csv", ["photograph", "car", "dice", "jaccard"], list(scores))
    return folder


def test_a_trainings_command_has_the_settings_that_it_had(tmp_path):
    command = f"python train_unet.py --data data/carvana --stages 572:2:2 --base-channels 16 --out runs/{tmp_path.name}"
    assert unet_scores.command_of(a_run(tmp_path)) == command


def test_what_a_run_gains_is_told_car_by_car(tmp_path):
    """A car far below the others would hide a small gain on all of them in the error of the mean."""
    first = [["a_01", "a", 0.99, 0.98], ["a_02", "a", 0.97, 0.96], ["b_01", "b", 0.90, 0.8], ["c_01", "c", 0.995, 0.99]]
    second = [[name, car, dice + 0.002, jaccard] for name, car, dice, jaccard in first]
    runs = unet_scores.run_rows([a_run(tmp_path / "1", first), a_run(tmp_path / "2", second)])
    assert (runs[0]["gain"], runs[1]["better"]) == (None, 3)
    assert runs[1]["gain"] == pytest.approx(0.002) and runs[1]["gain_interval"] == pytest.approx(0, abs=1e-9)
    assert runs[0]["dice_median"] == pytest.approx(0.98)
    assert runs[0]["dice_without_worst_car"] == pytest.approx((0.99 + 0.97 + 0.995) / 3)


def test_scores_of_another_model_than_the_one_that_is_shipped_are_refused(tmp_path, monkeypatch):
    (tmp_path / "model.pth").write_bytes(b"other weights")
    monkeypatch.setattr(sys, "argv", ["unet_scores", "--runs", str(tmp_path), "--full", str(tmp_path)])
    with pytest.raises(SystemExit, match="^error: .*model.pth is not the model of"):
        unet_scores.main()


def test_what_a_longer_training_gains_is_in_the_repository_as_its_photographs_have_it(tmp_path):
    rows = unet_scores.longer_rows(read_rows(unet_scores.RESULTS / "longer.csv"))
    write_rows(tmp_path / "means.csv", rows)
    assert (tmp_path / "means.csv").read_bytes() == (unet_scores.RESULTS / "longer_means.csv").read_bytes()
    assert [row["better"] for row in rows] == [12, 13]


def test_a_longer_training_is_scored_on_the_selection_and_the_report_cars(many_cars, tmp_path, monkeypatch):
    shutil.copy(fill.ROOT / "model.pth", tmp_path)
    monkeypatch.setattr(unet_scores, "RESULTS", tmp_path)
    monkeypatch.setattr(unet_scores, "SIZE", 32)
    monkeypatch.setattr(sys, "argv", ["unet_scores", "--longer", str(tmp_path), "--data", str(many_cars)])
    unet_scores.main()
    assert len(read_rows(tmp_path / "longer.csv")) == 28
    selection, report = read_rows(tmp_path / "longer_means.csv")
    assert (selection["cars"], report["cars"]) == ("selection", "report")
    assert float(report["gain"]) == 0  # it is the same network


# Speeds


def test_what_was_left_out_has_no_median():
    assert benchmark.spread([])["median"] is None
    assert benchmark.ratios({"plain": [1.0]}, {"a": ("bfloat16", "plain")})["a"]["median"] is None


def test_measurements_take_turns_after_a_round_that_does_not_count():
    calls = []
    measures = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "ab"}
    values = benchmark.in_turn(measures, rounds=2)
    assert calls == list("ab" * 3)
    assert values == {"a": [3, 5], "b": [4, 6]}
    assert benchmark.ratios(values, {"b_over_a": ("b", "a")})["b_over_a"]["rounds"] == [4 / 3, 6 / 5]


def test_the_cpu_time_of_a_command_is_that_of_its_process():
    assert benchmark.cpu_seconds(["-c", "sum(range(10**6))"]) > 0
    with pytest.raises(ValueError, match="python -c 1/0 failed: .*ZeroDivisionError"):
        benchmark.cpu_seconds(["-c", "1/0"])


def test_the_start_is_told_beside_its_aims_and_kept_by_the_machines_name(tmp_path, monkeypatch, capsys):
    seconds = {"-c": 2.0, "try.py": 3.0, "infer_unet.py": 4.0}
    monkeypatch.setattr(benchmark, "cpu_seconds", lambda arguments: seconds[Path(arguments[0]).name])
    monkeypatch.setattr(benchmark, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmark", "start", "--keep", "epyc"])
    benchmark.main()
    results = tables.read_json(tmp_path / "unet" / "start_benchmark_epyc.json")
    assert results["ratios"]["try_over_import_torch"]["median"] == 1.5
    assert results["ratios"]["infer_unet_over_import_torch"]["median"] == 2
    assert results["aims"] == {"try": 1.35, "infer_unet": 1.9}
    assert re.search(r"infer_unet_over_import_torch +2 .*aims\n +try +1.35\n", capsys.readouterr().out, re.DOTALL)
