"""The report's experiments: each trains many small networks, and keeps one row a training.

    python -m report.experiments criterion     which j of the paper's equation 9? (an hour on one core)
    python -m report.experiments unet_place --data DIR    what cropping does to the U-Net's outline (a minute)

writes report/results/experiments/NAME.csv after every training: a command that is stopped goes on, when it is given
again, after the last row that it wrote. LeNet-5 trains on 55,000 of MNIST's training digits; settings are chosen by the
accuracy on the 5,000 others, and the 10,000 test digits only report.
"""

import argparse
import csv
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from lenet import LeNet5Original, original_loss
from report import unet_experiments
from train_lenet import (
    LEARNING_RATES,
    VALIDATION_DIGITS,
    WEIGHT_DECAY,
    Batches,
    evaluate,
    load_mnist,
    random_affine,
    train_epoch,
)
from training import epoch_generator, write_rows

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "report" / "results" / "experiments"

AVERAGED_OVER = ("seed", "photograph")
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}  # Student's t

Loss = Callable[[Tensor, Tensor], Tensor]
Row = dict[str, Any]


def train_network(
    make: Callable[[], nn.Module], loss_function: Loss, seed: int, epochs: int, lr: float, batch_size: int = 256
) -> Row:
    """Trains the network of `make` with the recipe of `train_lenet.py`; returns what it came to, and the seconds."""
    start = time.perf_counter()
    images, labels = load_mnist(ROOT / "data", train=True)
    kept_back = slice(-VALIDATION_DIGITS, None)
    tests = {"validation": (images[kept_back], labels[kept_back]), "test": load_mnist(ROOT / "data", train=False)}
    images, labels = images[:-VALIDATION_DIGITS], labels[:-VALIDATION_DIGITS]
    torch.manual_seed(seed)
    model = make().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=WEIGHT_DECAY, fused=True)
    steps = epochs * -(-len(images) // batch_size)
    scheduler = OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
    for epoch in range(1, epochs + 1):
        batches = Batches(images, labels, batch_size, epoch_generator(seed, epoch), random_affine)
        train_epoch(model, batches, loss_function, optimizer, scheduler, epoch)
    row: Row = {}
    for name, digits in tests.items():
        _, accuracy = evaluate(model, Batches(*digits, batch_size=1000), loss_function)
        row[f"{name}_accuracy"] = round(accuracy, 6)
    return {**row, "seconds": round(time.perf_counter() - start, 1)}


def criterion(seeds: int) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """The network of 1998, with equation 9's j from nearly nothing to so much that its floor is gone."""

    def pull_alone(scores: Tensor, labels: Tensor) -> Tensor:
        return -scores.gather(1, labels[:, None]).mean()  # the first term of equation 9, without the second

    losses = {"none": pull_alone, **{str(j): partial(original_loss, j=j) for j in (0.1, 1, 3, 10, 20, 50, 100)}}
    for epochs, tried in ((5, list(losses)), (2, list(losses)), (20, ["none", "0.1", "10"])):
        for j in tried:
            for seed in range(seeds):
                train = partial(train_network, LeNet5Original, losses[j], seed, epochs, LEARNING_RATES["original"])
                yield {"j": j, "epochs": epochs, "seed": seed}, train


def means(rows: list[dict[str, str]], settings: list[str]) -> list[Row]:
    """One row for all the seeds, or photographs, of a setting: the mean of each result, and its 95% interval."""
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


EXPERIMENTS = {
    "criterion": lambda args: criterion(args.seeds),
    "unet_place": lambda args: unet_experiments.place(args.data),
}


def run(name: str, args: argparse.Namespace) -> None:
    """Makes every training of the experiment that its CSV file does not have yet."""
    path = RESULTS / f"{name}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(path.open(newline="", encoding="utf-8"))) if path.exists() else []
    for settings, train in tqdm(list(EXPERIMENTS[name](args)), name, unit="run", disable=None):
        as_text = {key: str(value) for key, value in settings.items()}
        if any(as_text.items() <= row.items() for row in rows):
            continue
        row = {**as_text, **{key: str(value) for key, value in train().items()}}
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
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
