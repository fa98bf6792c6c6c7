"""The runs of `train_lenet.py` that the report speaks of, each resumed where it was stopped.

    python -m report.lenet_runs recipe     how the defaults were chosen, on digits kept back from the training set
    python -m report.lenet_runs results    five seeds of both networks with the defaults, on the test set
    python -m report.lenet_runs epochs     the same two at each other's number of epochs, on the test set

Of `epochs` was expected, before it ran: at ten epochs today's network leads by 0.1 to 0.3 points, at twenty by less
than 0.1, for it has nearly done learning after ten, and the other has not.

Writes the history of every run to report/results/lenet/NAME.csv, and what the texts say of them to layers.csv,
networks.csv, recipe.csv, seeds.csv and summary.json.
"""

import argparse
import math
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

from lenet import LeNet5, LeNet5Original, count_parameters
from report import tables
from report.tables import going_on, interval, paired, read_rows, write_json
from train_lenet import DEFAULTS, VALIDATION_DIGITS, WEIGHT_DECAY
from training import ROOT, Row, command, told, write_rows

RESULTS = tables.RESULTS / "lenet"
NETWORKS = {"modern": LeNet5, "original": LeNet5Original}
MAPS = {
    "C1": (6, "28x28"),
    "S2": (6, "14x14"),
    "C3": (16, "10x10"),
    "S4": (16, "5x5"),
    "C5": (120, "1x1"),
    "F6": (84, "1x1"),
    "output": (10, "1x1"),
}
RUNS = {
    "recipe": {
        "recipe-modern-64-0.003": "--validate --batch-size 64 --lr 0.003",
        "recipe-modern-128-0.003": "--validate --batch-size 128 --lr 0.003",
        "recipe-modern-128-0.006": "--validate --batch-size 128 --lr 0.006",
        "recipe-modern-128-0.012": "--validate --batch-size 128 --lr 0.012",
        "recipe-modern-256-0.012": "--validate --batch-size 256 --lr 0.012",
        "recipe-modern-256-0.024": "--validate --batch-size 256 --lr 0.024",
        "recipe-modern-512-0.012": "--validate --batch-size 512 --lr 0.012",
        "recipe-modern-512-0.024": "--validate --batch-size 512 --lr 0.024",
        "recipe-modern-256-0.012-short": "--validate --epochs 3 --batch-size 256 --lr 0.012",
        "recipe-modern-plain": "--validate --batch-size 128 --lr 0.006 --no-augment",
        "recipe-original-0.006": "--validate --model original --epochs 5 --batch-size 256 --lr 0.006",
        "recipe-original-0.012": "--validate --model original --epochs 5 --batch-size 256 --lr 0.012",
        "recipe-original-0.024": "--validate --model original --epochs 5 --batch-size 256 --lr 0.024",
    },
    "results": {
        **{f"modern-seed{seed}": f"--epochs 10 --seed {seed}" for seed in range(5)},
        "modern-short": "--epochs 3",
        **{f"original-seed{seed}": f"--model original --epochs 20 --seed {seed}" for seed in range(5)},
    },
    "epochs": {
        **{f"modern-20-seed{seed}": f"--epochs 20 --seed {seed}" for seed in range(5)},
        **{f"original-10-seed{seed}": f"--model original --epochs 10 --seed {seed}" for seed in range(5)},
    },
}


def last_epoch(name: str) -> dict[str, float]:
    """The last row of a run's history; no epoch is picked out."""
    last = read_rows(RESULTS / f"{name}.csv", needed=True)[-1]
    return {column: float(value) for column, value in last.items()}


def standard_error(accuracy: float, digits: int) -> float:
    """How far an accuracy strays when the digits that it is measured on are drawn anew (binomial)."""
    return math.sqrt(accuracy * (1 - accuracy) / digits)


def layer_rows() -> list[Row]:
    networks = {name: network() for name, network in NETWORKS.items()}
    rows = []
    for layer, (maps, size) in MAPS.items():
        parts = {name: getattr(network, layer, None) for name, network in networks.items()}
        counts = {name: count_parameters(part) if part is not None else 0 for name, part in parts.items()}
        rows.append({"layer": layer, "maps": maps, "size": size, **counts})
    return rows


def recipe_rows() -> list[Row]:
    rows = []
    for name, options in RUNS["recipe"].items():
        end = last_epoch(name)
        wrong = round((1 - end["validation_accuracy"]) * VALIDATION_DIGITS)
        row = {"command": f"python train_lenet.py {options}", "accuracy": end["validation_accuracy"]}
        rows.append({**row, "wrong": wrong, "loss": end["validation_loss"]})
    return rows


def seed_rows(network: str) -> list[Row]:
    ends = {seed: last_epoch(f"{network}-seed{seed}") for seed in range(5)}
    columns = ("test_accuracy", "test_loss", "train_accuracy")
    return [
        {"network": network, "seed": seed, "wrong": round((1 - end["test_accuracy"]) * 10_000)}
        | {column: end[column] for column in columns}
        for seed, end in ends.items()
    ]


def epoch_rows() -> list[Row]:
    """Both networks at ten and at twenty epochs; what today's gains over that of 1998 at the same, paired by seed."""
    names = {10: ("modern-seed", "original-10-seed"), 20: ("modern-20-seed", "original-seed")}
    rows = []
    for epochs, pair in names.items():
        today, of_1998 = (
            {seed: 100 * last_epoch(f"{name}{seed}")["test_accuracy"] for seed in range(5)} for name in pair
        )
        gain = paired(today, of_1998)
        row = {"epochs": epochs, "gain": gain["gain"], "gain_interval": gain["gain_interval"]}
        for network, accuracies in (("modern", today), ("original", of_1998)):
            row[network], row[f"{network}_interval"] = interval(accuracies.values())
            row[f"{network}_wrong"] = 100 * (100 - row[network])
        rows.append(row)
    return rows


def summarize() -> None:
    """Writes what the texts say, from the histories of all runs."""
    seeds = {network: seed_rows(network) for network in NETWORKS}
    recipe = recipe_rows()
    summary: Row = {
        "recipe": {"batch_size": DEFAULTS["batch_size"], "weight_decay": WEIGHT_DECAY, "lr": DEFAULTS["lr"]},
        "validation_standard_error_points": 100 * standard_error(recipe[0]["accuracy"], VALIDATION_DIGITS),
    }
    table = []
    for network, rows in seeds.items():
        accuracies = [row["test_accuracy"] for row in rows]
        summary[network] = {
            "parameters": count_parameters(NETWORKS[network]()),
            "seeds": len(rows),
            "mean": mean(accuracies),
            "deviation_points": 100 * stdev(accuracies),
            "worst": min(accuracies),
            "best": max(accuracies),
            "wrong": mean(row["wrong"] for row in rows),
            "standard_error_points": 100 * standard_error(mean(accuracies), 10_000),
        }
        epochs = int(last_epoch(f"{network}-seed0")["epoch"])
        table.append({"network": network, "epochs": epochs, **summary[network]})
        del table[-1]["standard_error_points"]
    short = last_epoch("modern-short")
    accuracy, wrong = short["test_accuracy"], round((1 - short["test_accuracy"]) * 10_000)
    alone = {"seeds": 1, "mean": accuracy, "deviation_points": "", "worst": "", "best": "", "wrong": wrong}
    table.append({**table[0], **alone, "epochs": int(short["epoch"])})
    write_rows(RESULTS / "networks.csv", table)
    if all((RESULTS / f"{name}.csv").exists() for name in RUNS["epochs"]):
        write_rows(RESULTS / "epochs.csv", equal := epoch_rows())
        summary["gain_at_equal_epochs"] = {row["epochs"]: row["gain"] for row in equal}
    write_rows(RESULTS / "layers.csv", layer_rows())
    write_rows(RESULTS / "recipe.csv", recipe)
    write_rows(RESULTS / "seeds.csv", [row for rows in seeds.values() for row in rows])
    write_json(RESULTS / "summary.json", summary)


def run(name: str, options: str) -> None:
    """Makes or ends one run, and takes its history over; what is wrong, the run itself has said."""
    print(f"python train_lenet.py {options}", flush=True)
    out = Path("runs", "report", name)
    done = subprocess.run([sys.executable, "train_lenet.py", *options.split(), "--out", out, "--resume"], cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)
    shutil.copy(ROOT / out / "history.csv", RESULTS / f"{name}.csv")


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=list(RUNS))
    runs = RUNS[parser.parse_args().which]
    with told(), going_on():
        RESULTS.mkdir(parents=True, exist_ok=True)
        for name, options in runs.items():
            run(name, options)
        summarize()


if __name__ == "__main__":
    main()
