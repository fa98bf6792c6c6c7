"""The README and the report say what the files under report/results/ say."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from report import fill, unet_scores

COLUMNS = ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"]


def write_rows(path: Path, columns: list[str], rows: list[list[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Two made-up runs in a folder of their own: 99.40% and 99.50% at the last epoch, better before it."""
    folder = tmp_path / "lenet"
    folder.mkdir()
    for seed, accuracy in ((0, 0.994), (1, 0.995)):
        rows = [[1, 0.1, 0.98, 0.03, 0.999, 9.0], [2, 0.05, 0.99, 0.02, accuracy, 9.0]]
        write_rows(folder / f"modern-seed{seed}.csv", COLUMNS, rows)
    commands = [[f"modern-seed{seed}", f"python train_lenet.py --seed {seed}"] for seed in (0, 1)]
    write_rows(folder / "commands.csv", ["name", "command"], commands)
    monkeypatch.setattr(fill, "RESULTS", tmp_path)
    return folder


def test_the_texts_agree_with_the_results():
    done = subprocess.run(
        [sys.executable, "-m", "report.fill", "--check"], cwd=fill.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", fill.TEXTS)
def test_no_line_begins_with_a_figure(name):
    """Markdown takes a line that begins with a comment for HTML, and shows what follows as it is."""
    path = fill.ROOT / name
    if not path.exists():
        pytest.skip(f"there is no {name}")
    assert not re.findall(r"^\s*(?:[>*+-]\s+)?<!-- [\w-]+ -->\S.*", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_a_figure_comes_from_the_last_epoch_of_every_seed(results):
    text, changes, errors = fill.fill(
        "Mean <!-- lenet-mean --><!-- / -->, deviation <!-- lenet-deviation -->?<!-- / -->."
    )
    assert text == "Mean <!-- lenet-mean -->99.45%<!-- / -->, deviation <!-- lenet-deviation -->0.07<!-- / -->."
    assert len(changes) == 2
    assert errors == []


def test_a_text_that_agrees_is_left_as_it_is(results):
    text = "Mean <!-- lenet-mean -->99.45%<!-- / -->."
    assert fill.fill(text) == (text, [], [])


def test_a_changed_result_is_noticed(results):
    text, _, _ = fill.fill("<!-- lenet-mean --><!-- / -->")
    write_rows(results / "modern-seed1.csv", COLUMNS, [[1, 0.1, 0.98, 0.03, 0.996, 9.0]])
    assert fill.fill(text)[1] == ["lenet-mean is '99.45%', the files say '99.50%'"]


def test_a_table_keeps_its_heading_and_gets_new_rows(results):
    heading = "\n\n| Saat | Genauigkeit |\n|---|--:|\n"
    text, _, errors = fill.fill(f"<!-- lenet-seeds -->{heading}| old |\n\n<!-- / -->\n")
    rows = "| 0 | 99.40% | 60 | 0.0200 | 99.00% |\n| 1 | 99.50% | 50 | 0.0200 | 99.00% |\n\n"
    assert text == f"<!-- lenet-seeds -->{heading}{rows}<!-- / -->\n"
    assert errors == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<!-- lenet-maen -->99%<!-- / -->", "no figure called lenet-maen"),
        ("<!-- lenet-short -->99%<!-- / -->", "lenet-short cannot be had"),
        ("<!-- original-mean -->99%<!-- / -->", "original-mean cannot be had"),
        ("<!-- lenet-seeds -->none<!-- / -->", "lenet-seeds is a table"),
        ("<!-- lenet-mean -->99% and <!-- lenet-wrong -->60<!-- / -->", "<!-- lenet-mean --> has no partner"),
        ("99%<!-- / -->", "<!-- / --> has no partner"),
    ],
    ids=["unknown name", "no file", "no run of that name", "table without heading", "never closed", "never opened"],
)
def test_what_cannot_be_filled_in_is_an_error_and_stays(results, text, error):
    filled, _, errors = fill.fill(text)
    assert error in errors[0]
    assert fill.STRAY.sub("", filled) == fill.STRAY.sub("", text) or "has no partner" in error


def test_check_changes_nothing_and_exits_with_1(results, tmp_path, monkeypatch, capsys):
    (tmp_path / "README.md").write_text("<!-- lenet-mean -->99.00%<!-- / -->", encoding="utf-8")
    monkeypatch.setattr(fill, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["fill", "--check"])
    with pytest.raises(SystemExit) as exit:
        fill.main()
    assert exit.value.code == 1
    assert capsys.readouterr().out == "README.md: lenet-mean is '99.00%', the files say '99.45%'\n"
    assert "99.00%" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_the_histories_of_two_trainings_become_one(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_rows(tmp_path / name / "losses.csv", ["step", "epoch", "loss"], [[1, 1, 0.5], [2, 1, 0.4]])
    rows = unet_scores.joined([tmp_path / "a", tmp_path / "b"], "losses.csv", ("step", "epoch"))
    assert [(row["run"], row["step"], row["epoch"]) for row in rows] == [(1, 1, 1), (1, 2, 1), (2, 3, 2), (2, 4, 2)]


def test_a_trainings_command_has_the_settings_that_it_had(tmp_path):
    settings = {"model": None, "stages": "572:2:2", "base_channels": 16, "photographs": "12 with checksum 0"}
    torch.save({"settings": settings}, tmp_path / "checkpoint.pth")
    command = f"python train_unet.py --data data/carvana --stages 572:2:2 --base-channels 16 --out runs/{tmp_path.name}"
    assert unet_scores.command_of(tmp_path) == command


def test_scores_of_another_model_than_the_one_that_is_shipped_are_refused(tmp_path, monkeypatch):
    (tmp_path / "model.pth").write_bytes(b"other weights")
    monkeypatch.setattr(sys, "argv", ["unet_scores", "--runs", str(tmp_path), "--full", str(tmp_path)])
    with pytest.raises(SystemExit, match="^error: .*model.pth is not the model of"):
        unet_scores.main()
