"""Puts the figures from report/results/ into the README and the report.

    python -m report.fill            writes them in
    python -m report.fill --check    only says where texts and files disagree (exit status 1)

In a text a figure stands between two comments that a reader does not see: `<!-- lenet-mean -->99.47%<!-- / -->`. The
first names one of the `VALUES` below. Where that is a table, the heading is the text's own, down to its line of dashes;
the rows below it come from the files.
"""

import argparse
import csv
import json
import math
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from lenet import LeNet5, LeNet5Original, count_parameters
from train_lenet import DEFAULTS, LEARNING_RATES, WEIGHT_DECAY
from training import write_whole

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "report" / "results"
TEXTS = ["README.md", "report/README.md"]
FIGURE = re.compile(r"<!-- ([\w-]+) -->((?:(?!<!--).)*)<!-- / -->", re.DOTALL)
STRAY = re.compile(r"<!-- (/|[\w-]+) -->")
TABLE_HEADING = re.compile(r"\s*\|.*\n\|[-:| ]+\|\n")


def read_rows(name: str) -> list[dict[str, str]]:
    """The rows of report/results/NAME.csv."""
    with (RESULTS / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_entry(name: str, *keys: str) -> Any:
    """The entry under `keys`, the outermost first, in report/results/NAME.json."""
    entry = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    for key in keys:
        entry = entry[key]
    return entry


def last(run: str, column: str) -> float:
    """What a run of LeNet-5 ended with: `column` of its last epoch."""
    return float(read_rows(f"lenet/{run}")[-1][column])


def runs(prefix: str) -> dict[str, str]:
    """The runs of LeNet-5 whose names begin with `prefix`, and their commands, in the order in which they were made."""
    commands = {row["name"]: row["command"] for row in read_rows("lenet/commands") if row["name"].startswith(prefix)}
    if not commands:
        raise ValueError(f"no run in lenet/commands.csv has a name that begins with {prefix}")
    return commands


def accuracies(prefix: str) -> list[float]:
    return [last(run, "test_accuracy") for run in runs(prefix)]


def percent(share: float) -> str:
    return f"{share:.2%}"


def points(difference: float) -> str:
    """A difference of two shares, in percentage points."""
    return f"{100 * difference:.2f}"


def wrong(accuracy: float, digits: int = 10_000) -> str:
    return f"{(1 - accuracy) * digits:.0f}"


def standard_error(accuracy: float, digits: int = 10_000) -> float:
    """How far an accuracy strays when the `digits` digits that it is measured on are drawn anew (binomial)."""
    return math.sqrt(accuracy * (1 - accuracy) / digits)


def layer_rows() -> list[str]:
    networks = LeNet5(), LeNet5Original()
    sizes = {"C1": "28x28", "S2": "14x14", "C3": "10x10", "S4": "5x5"}
    rows = []
    for name, maps in {"C1": 6, "S2": 6, "C3": 16, "S4": 16, "C5": 120, "F6": 84, "output": 10}.items():
        counts = [count_parameters(getattr(network, name, LeNet5().S2)) for network in networks]
        rows.append(f"| {name} | {maps} | {sizes.get(name, '1x1')} | {counts[0]:,} | {counts[1]:,} |")
    return rows


def recipe_rows() -> list[str]:
    rows = []
    for run, command in runs("recipe-").items():
        accuracy, loss = (last(run, f"validation_{column}") for column in ("accuracy", "loss"))
        rows.append(f"| `{command}` | {percent(accuracy)} | {wrong(accuracy, 5000)} | {loss:.4f} |")
    return rows


def seed_rows(prefix: str) -> list[str]:
    rows = []
    for run in runs(prefix):
        accuracy, loss, train = (last(run, column) for column in ("test_accuracy", "test_loss", "train_accuracy"))
        rows.append(
            f"| {run.removeprefix(prefix)} | {percent(accuracy)} | {wrong(accuracy)} | {loss:.4f} | {percent(train)} |"
        )
    return rows


def speed(network: str, section: str, name: str, form: str) -> str:
    """A figure of a benchmark, `form` made of its "median", "min" and "max"."""
    return form.format_map(read_entry(f"{network}/benchmark", section, name))


def score(cars: str, name: str) -> str:
    return f"{read_entry('unet/scores', cars, name):.4f}"


def command_rows() -> list[str]:
    return [f"| {run} | `{command}` |" for run, command in enumerate(read_entry("unet/scores", "commands"), start=1)]


def history_rows() -> list[str]:
    rows = []
    for row in read_rows("unet/history"):
        dice, overlap, minutes = float(row["dice"]), float(row["jaccard"]), float(row["seconds"]) / 60
        rows.append(
            f"| {row['run']} | {row['epoch']} | {row['size']} | {row['batch_size']} | {float(row['train_loss']):.4f} "
            f"| {dice:.4f} | {overlap:.4f} | {minutes:.0f} |"
        )
    return rows


def trial_rows() -> list[str]:
    rows = []
    for row in read_rows("unet/trials"):
        boxes = f", boxes of {float(row['least_box']):.0%} to 100%" if float(row["least_box"]) < 1 else ""
        rows.append(
            f"| {row['trial']} | {row['starts_from']} | {row['sizes'].replace('-', ', ')}{boxes} | {row['lr']} "
            f"| {row['batch_sizes'].replace('-', ', ')} | {row['seconds_on_one_core']} "
            f"| {float(row['selection_dice_last_weights']):.4f} |"
        )
    return rows


def report_cars_standard_error() -> str:
    scores = read_entry("unet/scores", "report_cars")
    return f"{scores['dice_car_deviation'] / math.sqrt(scores['cars']):.4f}"


def training_speed_rows() -> list[str]:
    rows = []
    form = "{median:.2f} ({min:.2f} to {max:.2f})"
    for size in ("96", "160", "572"):
        ratios = read_entry("unet/training_benchmark", size)
        cells = [form.format_map(ratios[f"{workers}_workers_over_ready"]) for workers in (0, 2)]
        rows.append(f"| {size} | {' | '.join(cells)} |")
    return rows


def loader_microseconds() -> str:
    """What the DataLoader without workers adds to the training of one digit."""
    speeds = read_entry("lenet/benchmark", "images_per_second")
    return f"{1e6 / speeds['loader_0_workers']['median'] - 1e6 / speeds['bare_default_format']['median']:.0f}"


MODERN, ORIGINAL = "modern-seed", "original-seed"
VALUES: dict[str, Callable[[], object]] = {
    "lenet-layers": layer_rows,
    "lenet-parameters": lambda: f"{count_parameters(LeNet5()):,}",
    "original-parameters": lambda: f"{count_parameters(LeNet5Original()):,}",
    "lenet-batch-size": lambda: DEFAULTS["batch_size"],
    "lenet-weight-decay": lambda: WEIGHT_DECAY,
    "lenet-lr": lambda: LEARNING_RATES["modern"],
    "original-lr": lambda: LEARNING_RATES["original"],
    "recipe": recipe_rows,
    "recipe-standard-error": lambda: points(
        standard_error(last(next(iter(runs("recipe-modern"))), "validation_accuracy"), 5000)
    ),
    "lenet-seeds": lambda: seed_rows(MODERN),
    "lenet-mean": lambda: percent(mean(accuracies(MODERN))),
    "lenet-deviation": lambda: points(stdev(accuracies(MODERN))),
    "lenet-worst": lambda: percent(min(accuracies(MODERN))),
    "lenet-best": lambda: percent(max(accuracies(MODERN))),
    "lenet-wrong": lambda: wrong(mean(accuracies(MODERN))),
    "lenet-standard-error": lambda: points(standard_error(mean(accuracies(MODERN)))),
    "lenet-train-accuracy": lambda: percent(mean(last(run, "train_accuracy") for run in runs(MODERN))),
    "lenet-short": lambda: percent(last("modern-short", "test_accuracy")),
    "original-seeds": lambda: seed_rows(ORIGINAL),
    "original-mean": lambda: percent(mean(accuracies(ORIGINAL))),
    "original-wrong": lambda: wrong(mean(accuracies(ORIGINAL))),
    **{
        f"lenet-speed-{name.replace('_', '-')}": partial(speed, "lenet", "images_per_second", name, "{median:,.0f}")
        for name in ("bare", "bare_default_format", "loop", "loop_augmented", "loader_0_workers", "loader_2_workers")
    },
    **{
        f"lenet-{kind}-{name.replace('_', '-')}": partial(speed, "lenet", "ratios", name, form)
        for name in (
            *("loop_over_bare", "loop_augmented_over_bare"),
            *("loop_over_loader", "channels_last_over_default_format"),
        )
        for kind, form in (("ratio", "{median:.2f}"), ("spread", "{min:.2f} to {max:.2f}"))
    },
    "lenet-loader-microseconds": loader_microseconds,
    **{
        f"lenet-machine-{name}": partial(read_entry, "lenet/benchmark", "machine", name)
        for name in ("cpu", "instructions", "threads", "torch", "date")
    },
    **{
        f"unet-{cars.replace('_', '-')}-{name.replace('_', '-')}": partial(score, cars, name)
        for cars in ("report_cars", "full_size_cars", "other_drawn_cars")
        for name in ("dice", "dice_worst", "dice_deviation", "dice_car_deviation", "jaccard")
    },
    **{
        f"unet-{cars.replace('_', '-')}-{name}": partial(read_entry, "unet/scores", cars, name)
        for cars in ("report_cars", "full_size_cars", "other_drawn_cars")
        for name in ("photographs", "cars")
    },
    "unet-history": history_rows,
    "unet-trials": trial_rows,
    "unet-commands": command_rows,
    "unet-report-dice-of-runs": lambda: ", ".join(f"{dice:.4f}" for dice in read_entry("unet/scores", "report_dice")),
    "unet-training-speed": training_speed_rows,
    "unet-report-cars-standard-error": report_cars_standard_error,
    **{f"unet-machine-{name}": partial(read_entry, "unet/benchmark", "machine", name) for name in ("cpu", "threads")},
    "unet-drawn-car-dice": lambda: score("drawn_car", "dice"),
    **{
        f"unet-of-matmul-{name.replace('_', '-')}": partial(speed, "unet", "of_matmul", name, "{median:.0%}")
        for name in ("full_plain", "full", "full_bfloat16", "small", "small_bfloat16")
    },
    **{
        f"unet-ratio-{name.replace('_', '-')}": partial(speed, "unet", "ratios", name, "{median:.2f}")
        for name in ("plain_over_full", "full_whole_over_small_whole")
    },
    **{
        f"unet-share-{step.replace('_', '-')}": partial(
            speed, "unet", "ratios", f"step_{step}_over_small_whole", "{median:.0%}"
        )
        for step in ("open", "predict", "overlay", "save", "save_default")
    },
    "unet-share-forward": partial(speed, "unet", "ratios", "small_over_small_whole", "{median:.0%}"),
    "unet-spread-whole": partial(speed, "unet", "ratios", "full_whole_over_small_whole", "{min:.1f} to {max:.1f}"),
    **{
        f"unet-{section.replace('_', '-')}-{name}": lambda section=section, name=name: (
            f"{read_entry('unet/benchmark', section, name):,.0f}"
        )
        for section in ("gflop", "peak_mib")
        for name in ("full", "small")
    },
}


def fill(text: str) -> tuple[str, list[str], list[str]]:
    """`text` with its figures as the files have them; which of them differed; and which cannot be had, and stay."""
    changes, errors = [], []

    def renew(match: re.Match[str]) -> str:
        name, old = match.groups()
        if name not in VALUES:
            errors.append(f"there is no figure called {name}")
            return match[0]
        try:
            value = VALUES[name]()
        except (OSError, KeyError, IndexError, ValueError) as error:
            errors.append(f"{name} cannot be had: {type(error).__name__}: {error}")
            return match[0]
        if isinstance(value, list):
            heading = TABLE_HEADING.match(old)
            if heading is None:
                errors.append(f"{name} is a table: write its heading between the comments, down to the line of dashes")
                return match[0]
            new = heading[0] + "\n".join(value) + "\n\n"
        else:
            new = str(value)
        if new != old:
            changes.append(f"{name} is {old.strip()!r}, the files say {new.strip()!r}")
        return f"<!-- {name} -->{new}<!-- / -->"

    filled = FIGURE.sub(renew, text)
    errors += [f"{stray[0]} has no partner" for stray in STRAY.finditer(FIGURE.sub("", text))]
    return filled, changes, errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    wanting = False
    for name in TEXTS:
        path = ROOT / name
        if not path.exists():
            continue
        filled, changes, errors = fill(path.read_text(encoding="utf-8"))
        for change in changes:
            print(f"{name}: {change}")
        for error in errors:
            print(f"error: {name}: {error}", file=sys.stderr)
        if changes and not check:
            with write_whole(path) as part:
                part.write_text(filled, encoding="utf-8")
        wanting |= bool(errors) or (check and bool(changes))
    sys.exit(int(wanting))


if __name__ == "__main__":
    main()
