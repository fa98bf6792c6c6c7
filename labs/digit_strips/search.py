"""Looks for the settings with which the network learns best, by cross-validation (the strips tutorial, section 3.2).

    python -m labs.digit_strips search --method random --trials 16 --folds 3
    python -m labs.digit_strips search --method grid --trials 12

writes to its --out, after every trial: METHOD.csv, a row a trial; METHOD_best.csv, its best row; and METHOD.png, the
valley of the error over the learning rate. A search that is stopped goes on, when the same command is given again,
with the trial that it was in; more --trials go on where fewer ended.

A random search draws every setting anew. A grid goes through SPACE, the learning rates first, then the optimizers, and
so on: 6 trials are one line through the valley, 12 two.
"""

import argparse
import itertools
import math
import random
import time
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from torch import nn

from labs.commands import drawing
from labs.digit_strips.strips import CNN, PLACES, Digits, cut, make_strips
from report.tables import RESULTS, Rows, Trainings, go_on, read_rows
from train_lenet import Batches, evaluate, train_epoch
from training import Row, epoch_generator, write_rows

METHODS = ("grid", "random")
QUICK = (2, 500)  # folds and pieces of a --quick search
SPACE = {
    "lr": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
    "optimizer": ("sgd", "adam"),
    "momentum": (0.9, 0.5, 0.0),  # Adam's first beta
    "batch_size": (60, 30, 120),
    "epochs": (4, 2),
}


def trials(method: str, count: int) -> list[Row]:
    """The settings to try, the same at every call; a longer list begins as a shorter one."""
    if method == "grid":
        points = itertools.product(*reversed(SPACE.values()))  # the last of a product's factors changes fastest
        return [dict(zip(SPACE, reversed(point), strict=True)) for point in itertools.islice(points, count)]
    draw = random.Random(0)
    return [
        {
            "lr": float(f"{10 ** draw.uniform(math.log10(SPACE['lr'][0]), math.log10(SPACE['lr'][-1])):.2g}"),
            "optimizer": draw.choice(SPACE["optimizer"]),
            "momentum": round(draw.uniform(0, 0.95), 2),
            "batch_size": draw.choice(SPACE["batch_size"]),
            "epochs": draw.choice(SPACE["epochs"]),
        }
        for _ in range(count)
    ]


def make_optimizer(network: nn.Module, settings: Row) -> torch.optim.Optimizer:
    if settings["optimizer"] == "sgd":
        return torch.optim.SGD(network.parameters(), lr=settings["lr"], momentum=settings["momentum"])
    return torch.optim.Adam(network.parameters(), lr=settings["lr"], betas=(settings["momentum"], 0.999))


def fold_accuracy(settings: Row, digits: Digits, fold: int, folds: int, count: int, device: torch.device) -> float:
    """The share of pieces read right in strips of the digits of `fold`, after training on `count` pieces of the others.

    Folds are of digits, not of strips: a digit is in several strips, and would else be learned and asked for.
    """
    images, labels = digits
    held = torch.arange(len(labels)) % folds == fold
    parts = [make_strips((images[part], labels[part]), -(-count // PLACES), seed=fold) for part in (~held, held)]
    training, validation = [(cut(strips).to(device) / 255, labels.flatten().to(device)) for strips, labels in parts]
    torch.manual_seed(fold)
    network = CNN().to(device)
    optimizer = make_optimizer(network, settings)
    try:
        for epoch in range(1, settings["epochs"] + 1):
            batches = Batches(*training, settings["batch_size"], epoch_generator(fold, epoch))
            train_epoch(network, batches, F.nll_loss, optimizer, epoch=epoch)
    except FloatingPointError:
        return 0.0  # a network that diverged reads nothing
    return evaluate(network, Batches(*validation, 1000), F.nll_loss)[1]


def search(args: argparse.Namespace, digits: Digits, device: torch.device) -> None:
    """Makes every trial that the table does not have yet; raises ValueError or OSError, worded for the user."""
    count, folds, pieces = (2, *QUICK) if args.quick else (args.trials, args.folds, args.pieces)
    path = args.out / f"{args.method}.csv"
    rows = read_rows(path)
    if any((row.get("folds"), row.get("pieces")) != (str(folds), str(pieces)) for row in rows):
        raise ValueError(f"{path} holds a search with other --folds or --pieces: choose another --out")

    def one(settings: Row) -> Row:
        began = time.perf_counter()
        accuracies = [fold_accuracy(settings, digits, fold, folds, pieces, device) for fold in range(folds)]
        row = {"accuracy": round(mean(accuracies), 6), "spread": round(stdev(accuracies), 6)}
        return {**row, "seconds": round(time.perf_counter() - began, 1)}

    def trainings() -> Trainings:
        for number, settings in enumerate(trials(args.method, count), start=1):
            yield {"trial": number, **settings, "folds": folds, "pieces": pieces}, partial(one, settings)

    go_on(path, rows, trainings())
    best = best_of(rows)
    write_rows(path.with_stem(f"{args.method}_best"), [best])
    plot_valley(path.with_suffix(".png"), rows)
    print(f"Best of {len(rows)}: trial {best['trial']}, {float(best['accuracy']):.2%} of the pieces; see {path}")


def best_of(rows: Rows) -> Row:
    return max(rows, key=lambda row: float(row["accuracy"]))


def keep(path: Path) -> None:
    """Keeps the table METHOD.csv of a search where the text reads it, and its valley beside this file."""
    rows = read_rows(path, needed=True)
    if path.stem not in METHODS or not rows or not {"lr", "optimizer", "accuracy", "spread"} <= rows[0].keys():
        raise ValueError(f"{path} is not the {' or '.join(f'{method}.csv' for method in METHODS)} of a search")
    if (rows[0].get("folds"), rows[0].get("pieces")) == tuple(map(str, QUICK)):
        raise ValueError(f"{path} is a --quick search, which shows only that the lab works")
    for name, kept in ((path.stem, rows), (f"{path.stem}_best", [best_of(rows)])):
        write_rows(RESULTS / "labs" / f"digit_strips_{name}.csv", kept)
    plot_valley(Path(__file__).with_name(f"{path.stem}.png"), rows)
    print(f"Kept: {len(rows)} trials of {path}")


def plot_valley(path: Path, rows: Rows) -> None:
    """Draws the error of each trial over its learning rate; the bars are the standard deviation over the folds."""
    with drawing(path, 6.4, 4) as figure:
        axes = figure.subplots()
        for optimizer, marker in (("sgd", "o"), ("adam", "s")):
            ours = sorted((row for row in rows if row["optimizer"] == optimizer), key=lambda row: float(row["lr"]))
            errors = [100 - 100 * float(row["accuracy"]) for row in ours]
            bars = [100 * float(row["spread"]) for row in ours]
            axes.errorbar([float(row["lr"]) for row in ours], errors, bars, fmt=marker, capsize=2, label=optimizer)
        best = best_of(rows)
        axes.plot(
            float(best["lr"]), 100 - 100 * float(best["accuracy"]), "o", ms=16, mfc="none", mec="black", label="best"
        )
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="learning rate",
            ylabel="error, % of the pieces",
            title=f"{len(rows)} trials",
        )
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False)
