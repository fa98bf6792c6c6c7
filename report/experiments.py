"""The report's experiments: each makes many small trainings, and keeps one row of each.

    python -m report.experiments ladder           from the network of 1998 to today's, one change at a time
    python -m report.experiments optimizers       five optimizers, each over its learning rates
    python -m report.experiments batch_size       batch size against learning rate, at equal epochs and at equal time
    python -m report.experiments digits           from 100 to 60,000 training digits
    python -m report.experiments regularization   under- and overfitting on 1,000 digits
    python -m report.experiments robustness       digits turned, shifted, scaled, noisy, and attacked
    python -m report.experiments missed           the test digits that they read wrong
    python -m report.experiments width            a tenth to four times LeNet-5's width
    python -m report.experiments best_trials      what helps LeNet-5 to read still better
    python -m report.experiments best             the most that LeNet-5's 61,706 parameters reach
    python -m report.experiments criterion        which j of the paper's equation 9?
    python -m report.experiments unet_place --data DIR    what cropping does to the U-Net's outline
    python -m report.experiments unet_size --data DIR     how large the U-Net's input should be
    python -m report.experiments unet_width --data DIR    wide or narrow, in equal time
    python -m report.experiments unet_photographs --data DIR    from 8 to 258 cars to train on
    python -m report.experiments unet_recipe --data DIR    what a training of the U-Net could be helped by

writes report/results/experiments/NAME.csv after every training, and NAME_means.csv with the mean over the seeds and its
95% interval. A command that is stopped goes on, when it is given again, in the training that it was in. What is tried
stands in lenet_experiments.py, best.py, unet_experiments.py and unet_recipe.py.
"""

import argparse
import csv
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from report import best, lenet_experiments, unet_experiments, unet_recipe
from report.lenet_experiments import Stopped
from training import write_rows

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "report" / "results" / "experiments"
AVERAGED_OVER = ("seed", "fold", "photograph")
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # Student's t

Row = dict[str, Any]
Trainings = Iterator[tuple[Row, Callable[[], Row]]]  # what tells a training from the others, and how to make it

EXPERIMENTS: dict[str, Callable[[argparse.Namespace, list[dict[str, str]]], Trainings]] = {
    "ladder": lenet_experiments.ladder,
    "optimizers": lenet_experiments.optimizers,
    "batch_size": lenet_experiments.batch_size,
    "digits": lenet_experiments.digits,
    "regularization": lenet_experiments.regularization,
    "robustness": lenet_experiments.robustness,
    "missed": lenet_experiments.missed,
    "width": lenet_experiments.width,
    "best_trials": best.trials,
    "best": best.best,
    "criterion": lenet_experiments.criterion,
    "unet_place": unet_experiments.place,
    "unet_size": unet_experiments.size,
    "unet_width": unet_experiments.width,
    "unet_photographs": unet_experiments.photographs,
    "unet_recipe": unet_recipe.recipe,
}


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, none where there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def keep_curves(path: Path, settings: Row, history: list[Row]) -> None:
    """Adds a training's history, if its experiment keeps them, to the file `path`."""
    same = {key: str(value) for key, value in settings.items()}.items()
    others = [row for row in read_table(path) if not same <= row.items()]  # same: of a command killed just before
    if history:
        write_rows(path, others + [{**settings, **row} for row in history])


def means(rows: list[dict[str, str]], settings: list[str]) -> list[Row]:
    """One row for all the seeds, folds or photographs of a setting: the mean of each result, and its 95% interval."""
    by = [name for name in settings if name not in AVERAGED_OVER]
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    table = []
    for setting, group in groups.items():
        row: Row = {**dict(zip(by, setting, strict=True)), "count": len(group)}
        for name in [name for name in rows[0] if name not in settings]:
            values = [float(one[name]) for one in group]
            spread = T_95.get(len(group), 1.96) * stdev(values) / math.sqrt(len(group)) if len(group) > 1 else ""
            row |= {name: mean(values), f"{name}_interval": spread}
        table.append(row)
    return table


def run(name: str, args: argparse.Namespace) -> None:
    """Makes every training of the experiment that its CSV file does not have yet."""
    path = RESULTS / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = read_table(path)
    for settings, train in EXPERIMENTS[name](args, rows):
        as_text = {key: str(value) for key, value in settings.items()}
        if any(as_text.items() <= row.items() for row in rows):
            continue
        result = train()
        keep_curves(path.with_stem(f"{name}_curves"), settings, result.pop("curves", []))
        row = {**as_text, **{key: str(value) for key, value in result.items()}}
        rows.append(row)
        write_rows(path, rows)
        write_rows(path.with_stem(f"{name}_means"), means(rows, list(settings)))
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each setting (default: 5)")
    parser.add_argument("--data", type=Path, default="data/carvana", metavar="DIR", help="photographs, for the U-Net's")
    args = parser.parse_args()
    try:
        run(args.name, args)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except (KeyboardInterrupt, Stopped):
        print("\nStopped. The same command goes on.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
