"""What the shipped `model.pth` does on photographs that it never saw, for the report.

    python -m report.unet_scores --data carvana --full carvana_full

`--data` is the folder that the model was trained on, of which only the report cars are used (the same split as in
training, by the same seed); `--full` a folder of other cars at their original 1918x1280. The drawn `car.jpg` is scored
too. Everything runs in float32, as in `infer_unet.py`. Writes report/results/unet/scores.json and one CSV a set.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from infer_unet import open_photograph, predict_mask
from train_unet import DEFAULTS, SIZE, dice_coefficient, find_pairs, read_mask, score_pictures, split_by_car
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
    parser.add_argument("--data", type=Path, required=True, help="the folder that the model was trained on")
    parser.add_argument("--full", type=Path, required=True, help="photographs of other cars, at their full size")
    args = parser.parse_args()
    model = load_unet(ROOT / "model.pth", torch.device("cpu"))
    sets = {
        "report_cars": split_by_car(find_pairs(args.data), DEFAULTS["val_cars"], DEFAULTS["seed"])[2],
        "full_size_cars": find_pairs(args.full),
    }
    scores = {}
    for name, pairs in sets.items():
        rows = score_pictures(model, pairs, SIZE, name)
        write_history(RESULTS / f"{name}.csv", rows)
        scores[name] = summary(rows)
    prediction = torch.from_numpy(predict_mask(model, open_photograph(ROOT / "car.jpg"), SIZE)).float()
    target = torch.from_numpy(read_mask(RESULTS / "car_mask.png")).float()
    scores["drawn_car"] = {"dice": dice_coefficient(prediction, target).item()}
    with write_whole(RESULTS / "scores.json") as part:
        part.write_text(json.dumps(scores, indent=2) + "\n")
    for name, values in scores.items():
        print(name, " ".join(f"{key} {value:.4f}" for key, value in values.items() if isinstance(value, float)))


if __name__ == "__main__":
    main()
