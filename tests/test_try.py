"""`try.py` prints the coursework's three lines for a checkpoint that fits, and one error for any other."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unet import UNet

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "try.py"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def run_here(monkeypatch, folder: Path, *arguments: str) -> None:
    """The script in this process: importing PyTorch anew for every case would take most of the tests' time."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["try.py", *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.parametrize(
    "arguments", [["--model", "model.pth"], ["-m", "model.pth"], []], ids=["long", "short", "default"]
)
def test_it_prints_the_courseworks_three_lines(tmp_path, monkeypatch, capsys, arguments):
    torch.save(UNet(3, 1, 2).state_dict(), tmp_path / "model.pth")
    run_here(monkeypatch, tmp_path, *arguments)
    printed = capsys.readouterr()
    assert printed.out == f"Loading model model.pth\nUsing device {DEVICE}\nModel loaded\n"
    assert printed.err == ""


def test_the_model_is_named_as_it_was_given(tmp_path, monkeypatch, capsys):
    torch.save(UNet(3, 1, 2).state_dict(), tmp_path / "other.pth")
    run_here(monkeypatch, tmp_path, "--model", "./other.pth")
    assert capsys.readouterr().out.startswith("Loading model ./other.pth\n")


def test_a_checkpoint_that_does_not_fit_is_one_line_of_error_and_exit_status_1(tmp_path):
    torch.save(UNet(3, 1, 2), tmp_path / "whole.pth")
    done = subprocess.run([sys.executable, SCRIPT, "-m", "whole.pth"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == f"Loading model whole.pth\nUsing device {DEVICE}\n"
    assert done.stderr.startswith("error: whole.pth ") and done.stderr.count("\n") == 1


def test_a_missing_checkpoint_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="^error: there is no checkpoint none.pth"):
        run_here(monkeypatch, tmp_path, "--model", "none.pth")


def test_in_a_folder_without_a_checkpoint_the_repositorys_own_is_tried(tmp_path, monkeypatch, capsys):
    run_here(monkeypatch, tmp_path)
    assert capsys.readouterr().out.startswith(f"Loading model {ROOT / 'model.pth'}\n")


def test_a_network_is_loaded_and_run_without_what_takes_as_long_to_import_as_pytorch_itself():
    code = """
import sys, torch
from unet import load_unet
model = load_unet("model.pth", torch.device("cpu"))
model(torch.rand(1, 3, 32, 48))
print(sorted({"torch._dynamo", "torchvision"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
