"""The report's figures show what the files under report/results/ hold, and nothing else."""

import csv
import shutil
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from lenet import LeNet5
from report import figures

SOURCES = {  # of each figure a file and a column that it shows
    "both": None,
    "architectures": None,
    "lenet_curves": ("lenet/modern-seed3.csv", "test_loss"),
    "unet_curves": ("unet/history.csv", "dice"),
    "car_mask": None,
    "ladder": ("experiments/ladder.csv", "test_accuracy"),
    "optimizers": ("experiments/optimizers_means.csv", "test_accuracy"),
    "batch_size": ("experiments/batch_size_means.csv", "test_accuracy"),
    "digits": ("experiments/digits_means.csv", "test_accuracy"),
    "regularization": ("experiments/regularization_curves.csv", "validation_loss"),
    "robustness": ("experiments/attacks_means.csv", "test_accuracy"),
    "distorted": None,
    "unknown": ("experiments/unknown_means.csv", "letters"),
    "missed": ("experiments/missed_curves.csv", "read"),
    "width": ("experiments/width_means.csv", "test_accuracy"),
    "best": ("experiments/best_trials_means.csv", "validation_accuracy"),
    "unet_place": None,
    "unet_rows": None,
    "unet_data": ("experiments/unet_photographs_means.csv", "dice"),
    "lenet_filters": None,
    "unet_filters": None,
}
MADE_FROM_RESULTS = [name for name, source in SOURCES.items() if source is not None]


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """A copy of the results; figures drawn from it go to another folder, small and not laid out: it is faster."""
    savefig = Figure.savefig
    folder = shutil.copytree(figures.RESULTS, tmp_path / "results")
    (tmp_path / "figures").mkdir()
    monkeypatch.setattr(figures, "RESULTS", folder)
    monkeypatch.setattr(figures, "FOLDER", tmp_path / "figures")
    monkeypatch.setattr(figures, "Figure", lambda figsize, layout: Figure(figsize))
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: savefig(figure, path, dpi=60))
    return folder


def drawn(name: str) -> bytes:
    figures.draw(name)
    (path,) = figures.FOLDER.glob(f"{name}.*")
    return path.read_bytes()


def test_every_figure_is_known_here():
    assert list(SOURCES) == list(figures.FIGURES)


@pytest.mark.parametrize("name", MADE_FROM_RESULTS)
def test_a_figure_changes_when_its_results_do_and_only_then(results, name):
    path, column = results / SOURCES[name][0], SOURCES[name][1]
    if not path.exists():
        pytest.skip(f"{path.name} is not made yet")
    before = drawn(name)
    assert drawn(name) == before
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row[column] = str((int(row[column]) + 1) % 10 if column == "read" else float(row[column]) * 0.9)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([rows[0], *(row.values() for row in rows)])
    assert drawn(name) != before


@pytest.mark.parametrize("name", ["both", "car_mask", "distorted", "unet_place", "lenet_filters", "unet_filters"])
def test_what_a_network_sees_is_drawn_from_the_weights_in_the_repository(results, name):
    assert len(drawn(name)) > 8_000  # an empty one has 5,000


def test_the_drawn_lenet_has_the_maps_and_units_of_the_network():
    drawn = {name: (count, side, side) if side else (count,) for name, count, side, _, _ in figures.LENET}
    outputs = figures.outputs_of(LeNet5(), list(drawn)[1:], torch.zeros(1, *drawn["input"]))
    assert [tuple(output.shape) for output in outputs] == list(drawn.values())[1:]


def rung_rows(lr: str, validation_accuracies: list[float]) -> list[dict[str, str]]:
    return [
        {"lr": lr, "seed": str(seed), "validation_accuracy": str(value)}
        for seed, value in enumerate(validation_accuracies)
    ]


def test_the_ladder_shows_the_rate_that_has_all_seeds_even_where_one_of_them_did_not_learn():
    tried, chosen = rung_rows("0.1", [0.97, 0.97, 0.97]), rung_rows("0.2", [0.98, 0.98, 0.98, 0.1, 0.98])
    assert figures.chosen_rows(tried + chosen) == chosen


def test_of_two_rates_with_all_seeds_the_ladder_shows_the_one_whose_first_seeds_read_most():
    earlier, chosen = rung_rows("0.1", [0.97] * 5), rung_rows("0.2", [0.98, 0.98, 0.98, 0.1, 0.1])
    assert figures.chosen_rows(chosen + earlier) == chosen


def test_a_figure_without_its_results_is_one_error(results, monkeypatch, capsys):
    (results / "experiments" / "robustness_means.csv").unlink()
    monkeypatch.setattr(sys, "argv", ["figures", "robustness"])
    with pytest.raises(SystemExit, match="^error: .*robustness_means.csv.*: make the runs first") as stop:
        figures.main()
    assert stop.value.code != 0
