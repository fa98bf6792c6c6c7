"""Gathers what the report says of the shipped `model.pth`, and scores it where the training did not.

    python -m report.unet_scores --run runs/unet-DATE-TIME --full carvana_full

`--run` is the run that made `model.pth`: its command, history and scores of the report cars are taken over. `--full`
is a folder of other cars at their original 1918x1280, kept away from the training; they and the drawn `car.jpg` are
scored here, in float32, as `infer_unet.py` does it. Writes scores.json and the CSV files in report/results/unet/.
"""

import argparse
import json
import shutil
from csv import DictReader
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from infer_unet import open_photograph, predict_mask
from train_unet import SIZE, dice_coefficient, find_pairs, read_mask, score_pictures
from training import write_history, write_whole
from unet import load_unet

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "report" / "results" / "unet"


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, standard deviation and extremes over the photographs, and the spread between the cars' own means."""
    cars = sorted({row["car"] for row in rows})
    car_means = [mean(row["dice"] for row in rows if row["car"] == car) for car in cars]
    worst = min(rows, key=lambda row: row["dice"])
    return {
        "photographs": len(rows),
        "cars": len(cars),
        "dice": mean(row["dice"] for row in rows),
        "dice_deviation": stdev(row["dice"] for row in rows),
        "dice_car_deviation": stdev(car_means),
        "dice_worst": worst["dice"],
        "worst": worst["photograph"],
        "jaccard": mean(row["jaccard"] for row in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the run that made model.pth")
    parser.add_argument("--full", type=Path, required=True, metavar="DIR", help="photographs of other cars")
    args = parser.parse_args()
    for name in ("history.csv", "losses.csv"):
        shutil.copy(args.run / name, RESULTS / name)
    with (args.run / "scores.csv").open(newline="") as file:
        report_rows = [{**row, **{name: float(row[name]) for name in ("dice", "jaccard")}} for row in DictReader(file)]
    model = load_unet(ROOT / "model.pth", torch.device("cpu"))
    full_rows = score_pictures(model, find_pairs(args.full), SIZE, "full-size cars")
    settings = torch.load(args.run / "checkpoint.pth", weights_only=True)["settings"]
    options = [f"--{name.replace('_', '-')} {value}" for name, value in settings.items() if name != "photographs"]
    scores: dict[str, Any] = {"command": " ".join(["python train_unet.py --data data/carvana", *options])}
    for name, rows in (("report_cars", report_rows), ("full_size_cars", full_rows)):
        write_history(RESULTS / f"{name}.csv", rows)
        scores[name] = summary(rows)
    prediction = torch.from_numpy(predict_mask(model, open_photograph(ROOT / "car.jpg"), SIZE)).float()
    target = torch.from_numpy(read_mask(RESULTS / "car_mask.png")).float()
    scores["drawn_car"] = {"dice": dice_coefficient(prediction, target).item()}
    with write_whole(RESULTS / "scores.json") as part:
        part.write_text(json.dumps(scores, indent=2) + "\n")
    print(json.dumps(scores, indent=2))


if __name__ == "__main__":
    main()
