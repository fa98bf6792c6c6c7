"""The report's figures show what the files under report/results/ hold, and nothing else."""

import csv
import shutil
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from report import figures

SOURCES = {  # of each figure a file and a column that it shows
    "both": None,
    "lenet_curves": ("lenet/modern-seed3.csv", "test_loss"),
    "unet_curves": ("unet/history.csv", "dice"),
    "car_mask": None,
    "ladder": ("experiments/ladder_means.csv", "test_accuracy"),
    "optimizers": ("experiments/optimizers_means.csv", "test_accuracy"),
    "batch_size": ("experiments/batch_size_means.csv", "test_accuracy"),
    "digits": ("experiments/digits_means.csv", "test_accuracy"),
    "regularization": ("experiments/regularization_curves.csv", "validation_loss"),
    "robustness": ("experiments/robustness_means.csv", "test_accuracy"),
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


@pytest.mark.parametrize("name", ["both", "car_mask", "unet_place", "lenet_filters", "unet_filters"])
def test_what_a_network_sees_is_drawn_from_the_weights_in_the_repository(results, name):
    assert len(drawn(name)) > 8_000  # an empty one has 5,000


def test_a_figure_without_its_results_is_one_error(results, monkeypatch, capsys):
    (results / "experiments" / "robustness_means.csv").unlink()
    monkeypatch.setattr(sys, "argv", ["figures", "robustness"])
    with pytest.raises(SystemExit, match="^error: .*robustness_means.csv.*: make the runs first") as stop:
        figures.main()
    assert stop.value.code != 0
