"""The report's experiments: each makes many small trainings, and keeps one row of each.

    python -m report.experiments ladder           from the network of 1998 to today's, one change at a time
    python -m report.experiments optimizers       five optimizers, each over its learning rates
    python -m report.experiments batch_size       batch size against learning rate, at equal epochs and at equal time
    python -m report.experiments digits           from 100 to 60,000 training digits
    python -m report.experiments regularization   under- and overfitting on 1,000 digits
    python -m report.experiments robustness       digits turned, shifted, scaled, and noisy
    python -m report.experiments attacks          and attacked, through the loss or through the scores
    python -m report.experiments unknown          do the networks know when they see no digit?
    python -m report.experiments missed           the test digits that they read wrong
    python -m report.experiments width            a tenth to four times LeNet-5's width
    python -m report.experiments best_trials      what helps LeNet-5 to read still better
    python -m report.experiments best             the most that LeNet-5's 61,706 parameters reach
    python -m report.experiments criterion        which j of the paper's equation 9?
    python -m report.experiments unet_place --data DIR    what cropping does to the U-Net's outline
    python -m report.experiments unet_size --data DIR     how large the U-Net's input should be
    python -m report.experiments unet_looks --data DIR    one look at a photograph, or several
    python -m report.experiments unet_restored --data DIR    what a perfect mask scores where masks were restored
    python -m report.experiments unet_rates --data DIR    the learning rate that each width wants
    python -m report.experiments unet_width --data DIR    wide or narrow, in equal time
    python -m report.experiments unet_photographs --data DIR    from 8 to 258 cars to train on
    python -m report.experiments unet_edges --data DIR    eight cars, with and without one before a dark edge
    python -m report.experiments unet_recipe --data DIR    what a training of the U-Net could be helped by
    python -m report.experiments means            trains nothing

writes report/results/experiments/NAME.csv after every training, and NAME_means.csv: the mean over seeds, folds or cars,
its 95% interval, and the same of the differences from one setting (`BASES`). A command that is stopped goes on, when it
is given again, in the training that it was in. What is tried stands in lenet_experiments.py, best.py,
unknown.py, unet_experiments.py and unet_recipe.py.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from report import best, lenet_experiments, tables, unet_experiments, unet_recipe, unknown
from report.tables import UNITS, Rows, Trainings, go_on, keep_curves, means, read_rows
from training import Row, command, told, write_rows

EXPERIMENTS: dict[str, Callable[[argparse.Namespace, Rows], Trainings]] = {
    "ladder": lenet_experiments.ladder,
    "optimizers": lenet_experiments.optimizers,
    "batch_size": lenet_experiments.batch_size,
    "digits": lenet_experiments.digits,
    "regularization": lenet_experiments.regularization,
    "robustness": lenet_experiments.robustness,
    "attacks": lenet_experiments.attacks,
    "unknown": unknown.unknown,
    "missed": lenet_experiments.missed,
    "width": lenet_experiments.width,
    "best_trials": best.trials,
    "best": best.best,
    "criterion": lenet_experiments.criterion,
    "unet_place": unet_experiments.place,
    "unet_size": unet_experiments.size,
    "unet_looks": unet_experiments.looks,
    "unet_restored": unet_experiments.restored,
    "unet_rates": unet_experiments.rates,
    "unet_width": unet_experiments.width,
    "unet_photographs": unet_experiments.photographs,
    "unet_edges": unet_experiments.edges,
    "unet_recipe": unet_recipe.recipe,
}

BASES = {  # what the other settings of an experiment, or those that are alike but for this, are compared with
    "digits": {"distortions": "False"},
    "regularization": {"method": "nothing", "strength": "0"},
    "robustness": {"distortions": "False"},
    "attacks": {"distortions": "False"},
    "unknown": {"score": "probability"},
    "width": {"width": "1", "parameters": "61706"},
    "best_trials": {"recipe": "today's recipe"},
    "criterion": {"j": "10"},
    "unet_place": {"place": "padded"},
    "unet_size": {"short_side": "572"},
    "unet_looks": {"looks": "one"},
    "unet_width": {"base_channels": "16"},
    "unet_photographs": {"cars": "258"},
    "unet_edges": {"dark": "0"},
    "unet_recipe": {"levers": "nothing"},
}


def table_of(name: str) -> Path:
    return tables.RESULTS / "experiments" / f"{name}.csv"


def write_means(name: str) -> None:
    """Writes the means of an experiment's rows; a row's settings end with what is averaged over."""
    if rows := read_rows(table_of(name)):
        columns = list(rows[0])
        settings = columns[: 1 + max(columns.index(unit) for unit in UNITS if unit in columns)]
        write_rows(table_of(f"{name}_means"), means(rows, settings, BASES.get(name)))


def run(name: str, args: argparse.Namespace) -> None:
    """Makes every training of the experiment that its CSV file does not have yet."""
    rows = read_rows(table_of(name))

    def train_and_keep(settings: Row, train: Callable[[], Row]) -> Row:
        row = train()
        keep_curves(table_of(f"{name}_curves"), settings, row.pop("curves", []))
        return row

    trainings = EXPERIMENTS[name](args, rows)
    kept = ((settings, partial(train_and_keep, settings, train)) for settings, train in trainings)
    go_on(table_of(name), rows, kept, after=lambda: write_means(name))


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[*EXPERIMENTS, "means"])
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each setting (default: 5)")
    parser.add_argument("--data", type=Path, default="data/carvana", metavar="DIR", help="photographs, for the U-Net's")
    args = parser.parse_args()
    with told():
        if args.name != "means":
            run(args.name, args)
        for name in EXPERIMENTS if args.name == "means" else [args.name]:
            write_means(name)


if __name__ == "__main__":
    main()
