"""Gathers what the report says of the shipped `model.pth`, and scores it where the training did not.

    python -m report.unet_scores --runs runs/first runs/second --full carvana_full

`--runs` are the runs that made `model.pth`, each but the first from the weights of the one before: their commands and
histories are taken over, and the last one's scores of the report cars. `--full` is a folder of other cars at their
original 1918x1280, kept away from the training; they, the drawn `car.jpg` and other drawn cars that were not trained on
are scored here, in float32, as `infer_unet.py` does it. Writes scores.json and the CSV files in report/results/unet/.
"""

import argparse
import json
import math
import sys
from csv import DictReader
from pathlib import Path
from statistics import mean, median, stdev
from tempfile import TemporaryDirectory
from typing import Any

import torch

from carvana import find_pairs
from report.draw_car import FOLDER_CARS, draw_folder
from train_unet import SIZE, score_pictures
from training import write_rows, write_whole
from unet import load_unet

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "report" / "results" / "unet"
DRAWN_CARS = 16


def by_car(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The mean Dice of each car's photographs."""
    cars = sorted({row["car"] for row in rows})
    return {car: mean(row["dice"] for row in rows if row["car"] == car) for car in cars}


def run_rows(runs: list[Path]) -> list[dict[str, Any]]:
    """Each run's Dice on the report cars, and what it gained over the one before, car by car.

    The cars are the same in all runs, so the error of the difference is that of the cars' differences.
    """
    table: list[dict[str, Any]] = []
    before: dict[str, float] = {}
    for number, run in enumerate(runs, start=1):
        rows = report_scores(run)
        cars, scores = by_car(rows), summary(rows)
        gains = [cars[car] - before[car] for car in before]
        row = {"run": number, "command": command_of(run)}
        row |= {name: scores[name] for name in ("dice", "dice_median", "dice_without_worst_car")}
        row["gain"] = mean(gains) if gains else ""
        row["gain_error"] = stdev(gains) / math.sqrt(len(gains)) if gains else ""
        row["better_cars"] = sum(gain > 0 for gain in gains) if gains else ""
        table.append(row)
        before = cars
    return table


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, median, standard deviation and extremes over the photographs; also without the car that is worst."""
    dice_of_car = by_car(rows)
    worst = min(rows, key=lambda row: row["dice"])
    worst_car = min(dice_of_car, key=dice_of_car.get)
    return {
        "photographs": len(rows),
        "cars": len(dice_of_car),
        "dice": mean(row["dice"] for row in rows),
        "dice_deviation": stdev(row["dice"] for row in rows),
        "dice_median": median(row["dice"] for row in rows),
        "dice_without_worst_car": mean(row["dice"] for row in rows if row["car"] != worst_car),
        "worst_car": worst_car,
        "dice_worst": worst["dice"],
        "worst": worst["photograph"],
        "jaccard": mean(row["jaccard"] for row in rows),
    }


def joined(runs: list[Path], name: str, counters: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows of the runs' files `name`, one run after the other, the columns `counters` counted on."""
    rows: list[dict[str, Any]] = []
    for number, run in enumerate(runs, start=1):
        offset = {counter: int(rows[-1][counter]) if rows else 0 for counter in counters}
        with (run / name).open(newline="") as file:
            for row in DictReader(file):
                rows.append({"run": number, **row, **{key: int(row[key]) + offset[key] for key in counters}})
    return rows


def command_of(run: Path) -> str:
    settings = torch.load(run / "checkpoint.pth", map_location="cpu", weights_only=True)["settings"]
    given = {name: value for name, value in settings.items() if value is not None and "photographs" not in name}
    options = [f"--{name.replace('_', '-')} {value}" for name, value in given.items()]
    return " ".join(["python train_unet.py --data data/carvana", *options, f"--out runs/{run.name}"])


def report_scores(run: Path) -> list[dict[str, Any]]:
    """What the run itself found on the report cars."""
    with (run / "scores.csv").open(newline="") as file:
        return [{**row, **{name: float(row[name]) for name in ("dice", "jaccard")}} for row in DictReader(file)]


def score_all(runs: list[Path], full: Path) -> None:
    """Scores the full-size cars and drawn ones; then writes everything."""
    last = runs[-1]
    if (last / "model.pth").read_bytes() != (ROOT / "model.pth").read_bytes():
        raise ValueError(f"{ROOT / 'model.pth'} is not the model of {last}: copy it there first")
    report_rows = report_scores(last)
    model = load_unet(ROOT / "model.pth", torch.device("cpu"))
    full_rows = score_pictures(model, find_pairs(full), SIZE, "full-size cars")
    drawn_rows = score_pictures(model, [(ROOT / "car.jpg", RESULTS / "car_mask.png")], SIZE, "car.jpg")
    with TemporaryDirectory() as name:
        draw_folder(Path(name), range(FOLDER_CARS + 1, FOLDER_CARS + 1 + DRAWN_CARS), 1918, 1280)
        other_rows = score_pictures(model, find_pairs(Path(name)), SIZE, "drawn cars")
    scores = {
        "report_cars": summary(report_rows),
        "full_size_cars": summary(full_rows),
        "drawn_car": {"photographs": 1, "dice": drawn_rows[0]["dice"]},
        "other_drawn_cars": summary(other_rows),
    }
    sets = ("report_cars", "full_size_cars", "drawn_car", "other_drawn_cars")
    columns = ("photographs", "dice", "dice_median", "dice_deviation", "dice_worst", "jaccard")
    write_rows(
        RESULTS / "scores.csv", [{"cars": name} | {key: scores[name].get(key, "") for key in columns} for name in sets]
    )
    write_rows(RESULTS / "runs.csv", run_rows(runs))
    history = joined(runs, "history.csv", ("epoch",))
    write_rows(RESULTS / "history.csv", [{**row, "minutes": float(row["seconds"]) / 60} for row in history])
    write_rows(RESULTS / "losses.csv", joined(runs, "losses.csv", ("step", "epoch")))
    write_rows(RESULTS / "report_cars.csv", report_rows)
    write_rows(RESULTS / "full_size_cars.csv", full_rows)
    with write_whole(RESULTS / "scores.json") as part:
        part.write_text(json.dumps(scores, indent=2) + "\n")
    print(json.dumps(scores, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, metavar="DIR", help="made model.pth, in order")
    parser.add_argument("--full", type=Path, required=True, metavar="DIR", help="photographs of other cars")
    args = parser.parse_args()
    try:
        score_all(args.runs, args.full)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
