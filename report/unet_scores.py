"""Gathers what the report says of the shipped `model.pth`, and scores it where the training did not.

    python -m report.unet_scores --runs runs/first runs/second --full carvana_full
    python -m report.unet_scores --longer runs/longer --data data/carvana

`--runs` are the runs that made `model.pth`, each but the first from the weights of the one before: their commands and
histories are taken over, and the last one's scores of the report cars. `--full` is a folder of other cars at their
original 1918x1280, kept away from the training; they, the drawn `car.jpg` and other drawn cars that were not trained on
are scored here, in float32, as `infer_unet.py` does it. Writes scores.json and CSV files in report/results/unet/.

`--longer` is a run that went on from `model.pth` for longer, on `--data`. Both networks are scored on the selection and
the report cars. Writes longer.csv and, car by car, longer_means.csv.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, median, stdev
from tempfile import TemporaryDirectory

import torch

from carvana import Pair, find_pairs, split_by_car
from report import tables
from report.draw_car import FOLDER_CARS, draw_folder
from report.harness import CPU
from report.tables import Rows, by_unit, grouped, interval, paired, read_rows, write_json
from train_unet import DEFAULTS, SIZE, score_pictures
from training import ROOT, Row, command, told, write_rows
from unet import load_unet

RESULTS = tables.RESULTS / "unet"
DRAWN_CARS = 16


def run_rows(runs: list[Path]) -> list[Row]:
    """Each run's Dice on the report cars, and what it gained over the one before, car by car."""
    table: list[Row] = []
    before = None
    for number, run in enumerate(runs, start=1):
        rows = report_scores(run)
        cars, scores = by_unit(rows, "dice"), summary(rows)
        row = {"run": number, "command": command_of(run)}
        row |= {name: scores[name] for name in ("dice", "dice_median", "dice_without_worst_car")}
        row |= paired(cars, before) if before else dict.fromkeys(("gain", "gain_interval", "better"))
        table.append(row)
        before = cars
    return table


def longer_rows(rows: Rows) -> list[Row]:
    """What a longer training gains over model.pth on the selection and on the report cars, and on the worst of each."""
    table = []
    for (cars,), own in grouped(rows, ["cars"]).items():
        before, after = by_unit(own, "model"), by_unit(own, "longer")
        gains = {car: after[car] - before[car] for car in after}
        worst = min(gains, key=gains.get)
        row = {"cars": cars, "model": mean(before.values()), "longer": mean(after.values()), **paired(after, before)}
        others = mean(gain for car, gain in gains.items() if car != worst)
        table.append({**row, "worst_gain": gains[worst], "others_gain": others})
    return table


def summary(rows: list[Row]) -> Row:
    """Mean, median, standard deviation and extremes over the photographs; also without the car that is worst.

    `dice_interval` is half the width of the 95% interval of the mean over the cars.
    """
    dice_of_car = by_unit(rows, "dice")
    worst = min(rows, key=lambda row: row["dice"])
    (worst_car,) = min(dice_of_car, key=dice_of_car.get)
    return {
        "photographs": len(rows),
        "cars": len(dice_of_car),
        "dice": mean(row["dice"] for row in rows),
        "dice_interval": interval(dice_of_car.values())[1],
        "dice_deviation": stdev(row["dice"] for row in rows),
        "dice_median": median(row["dice"] for row in rows),
        "dice_without_worst_car": mean(row["dice"] for row in rows if row["car"] != worst_car),
        "worst_car": worst_car,
        "dice_worst": worst["dice"],
        "worst": worst["photograph"],
        "jaccard": mean(row["jaccard"] for row in rows),
    }


def joined(runs: list[Path], name: str, counters: tuple[str, ...]) -> list[Row]:
    """The rows of the runs' files `name`, one run after the other, the columns `counters` counted on."""
    rows: list[Row] = []
    for number, run in enumerate(runs, start=1):
        offset = {counter: int(rows[-1][counter]) if rows else 0 for counter in counters}
        for row in read_rows(run / name, needed=True):
            rows.append({"run": number, **row, **{key: int(row[key]) + offset[key] for key in counters}})
    return rows


def command_of(run: Path) -> str:
    settings = torch.load(run / "checkpoint.pth", map_location="cpu", weights_only=True)["settings"]
    given = {name: value for name, value in settings.items() if value is not None and "photographs" not in name}
    options = [f"--{name.replace('_', '-')} {value}" for name, value in given.items()]
    return " ".join(["python train_unet.py --data data/carvana", *options, f"--out runs/{run.name}"])


def report_scores(run: Path) -> list[Row]:
    """What the run itself found on the report cars."""
    rows = read_rows(run / "scores.csv", needed=True)
    return [{**row, **{name: float(row[name]) for name in ("dice", "jaccard")}} for row in rows]


def score_all(runs: list[Path], full: Path) -> None:
    """Scores the full-size cars and drawn ones; then writes everything."""
    last = runs[-1]
    if (last / "model.pth").read_bytes() != (ROOT / "model.pth").read_bytes():
        raise ValueError(f"{ROOT / 'model.pth'} is not the model of {last}: copy it there first")
    report_rows = report_scores(last)
    model = load_unet(ROOT / "model.pth", CPU)
    full_rows = score_pictures(model, find_pairs(full), SIZE, "full-size cars")
    drawn_rows = score_pictures(model, [Pair(ROOT / "car.jpg", RESULTS / "car_mask.png")], SIZE, "car.jpg")
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
    columns = ("photographs", "dice", "dice_interval", "dice_median", "dice_deviation", "dice_worst", "jaccard")
    write_rows(
        RESULTS / "scores.csv", [{"cars": name} | {key: scores[name].get(key, "") for key in columns} for name in sets]
    )
    write_rows(RESULTS / "runs.csv", run_rows(runs))
    history = joined(runs, "history.csv", ("epoch",))
    write_rows(RESULTS / "history.csv", [{**row, "minutes": float(row["seconds"]) / 60} for row in history])
    write_rows(RESULTS / "losses.csv", joined(runs, "losses.csv", ("step", "epoch")))
    write_rows(RESULTS / "report_cars.csv", report_rows)
    write_rows(RESULTS / "full_size_cars.csv", full_rows)
    write_json(RESULTS / "scores.json", scores)
    print(json.dumps(scores, indent=1))


def score_longer(run: Path, data: Path) -> None:
    """Scores model.pth, and the network of `run`, on the selection and the report cars of `data`."""
    networks = [load_unet(folder / "model.pth", CPU) for folder in (ROOT, run)]
    _, selection, report = split_by_car(find_pairs(data), DEFAULTS["val_cars"], seed=0)
    rows: list[Row] = []
    for cars, pairs in {"selection": selection, "report": report}.items():
        before, after = (score_pictures(model, pairs, SIZE, f"{cars} cars") for model in networks)
        for one, other in zip(before, after, strict=True):
            dice = {"model": round(one["dice"], 6), "longer": round(other["dice"], 6)}
            rows.append({"cars": cars, "car": one["car"], "photograph": one["photograph"], **dice})
    write_rows(RESULTS / "longer.csv", rows)
    write_rows(RESULTS / "longer_means.csv", longer_rows(rows))


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", metavar="DIR", help="made model.pth, in order")
    parser.add_argument("--full", type=Path, metavar="DIR", help="photographs of other cars")
    parser.add_argument("--longer", type=Path, metavar="DIR", help="a run that went on from model.pth")
    parser.add_argument("--data", type=Path, default=Path("data/carvana"), metavar="DIR", help="what it was trained on")
    args = parser.parse_args()
    if not args.longer and not (args.runs and args.full):
        parser.error("give --runs and --full, or --longer")
    with told():
        if args.longer:
            score_longer(args.longer, args.data)
        else:
            score_all(args.runs, args.full)


if __name__ == "__main__":
    main()
