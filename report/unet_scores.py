"""Gathers what the report says of the shipped `model.pth`, and scores it where the training did not.

    python -m report.unet_scores --run runs/unet --full carvana_full

`--run` is the run that made `model.pth`: its history and its scores of the report cars are taken over, and compared
with those of the model before it, in report_cars_before.csv. `--full` is a folder of other cars at their original
1918x1280, kept away from the training; they, the drawn `car.jpg` and other drawn cars that were not trained on are
scored here, in float32, as `infer_unet.py` does it. Writes scores.json and the CSV files in report/results/unet/.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from statistics import mean, median, stdev
from tempfile import TemporaryDirectory
from typing import Any

import torch

from carvana import find_pairs
from infer_unet import SIZE
from report.draw_car import FOLDER_CARS, draw_folder
from report.experiments import read_table
from train_unet import score_pictures
from training import write_rows, write_whole
from unet import load_unet

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "report" / "results" / "unet"
DRAWN_CARS = 16


def by_car(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The mean Dice of each car's photographs."""
    cars = sorted({row["car"] for row in rows})
    return {car: mean(row["dice"] for row in rows if row["car"] == car) for car in cars}


def gain(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> dict[str, float]:
    """What Dice gained, car by car: the cars are the same, so its error is that of the cars' differences."""
    old, new = by_car(before), by_car(now)
    if old.keys() != new.keys():
        raise ValueError("the run reports on other cars than the model before it")
    gains = [new[car] - old[car] for car in old]
    error = stdev(gains) / math.sqrt(len(gains))
    return {"dice": mean(gains), "error": error, "better_cars": sum(gain > 0 for gain in gains)}


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


def scores_in(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's scores.csv, their scores as numbers."""
    return [{**row, **{name: float(row[name]) for name in ("dice", "jaccard")}} for row in read_table(path)]


def score_all(run: Path, full: Path) -> None:
    """Scores the full-size cars and drawn ones; then writes everything."""
    if (run / "model.pth").read_bytes() != (ROOT / "model.pth").read_bytes():
        raise ValueError(f"{ROOT / 'model.pth'} is not the model of {run}: copy it there first")
    before, report_rows = scores_in(RESULTS / "report_cars_before.csv"), scores_in(run / "scores.csv")
    gained = gain(before, report_rows)
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
    columns = ("photographs", "dice", "dice_median", "dice_deviation", "dice_worst", "jaccard")
    table = [{"cars": name} | {key: row.get(key, "") for key in columns} for name, row in scores.items()]
    write_rows(RESULTS / "scores.csv", table)
    scores |= {"before": summary(before), "gain": gained}
    history = read_table(run / "history.csv")
    write_rows(RESULTS / "history.csv", [{**row, "minutes": float(row["seconds"]) / 60} for row in history])
    write_rows(RESULTS / "losses.csv", read_table(run / "losses.csv"))
    write_rows(RESULTS / "report_cars.csv", report_rows)
    write_rows(RESULTS / "full_size_cars.csv", full_rows)
    with write_whole(RESULTS / "scores.json") as part:
        part.write_text(json.dumps(scores, indent=2) + "\n")
    print(json.dumps(scores, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="made model.pth")
    parser.add_argument("--full", type=Path, required=True, metavar="DIR", help="photographs of other cars")
    args = parser.parse_args()
    try:
        score_all(args.run, args.full)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
