"""What the labs' commands share: their parser, their figures, and what of a finished run is kept for the texts."""

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from report.tables import machine
from training import Row, Run, load_checkpoint, write_whole


def lab_parser(lab: str, text: str) -> argparse.ArgumentParser:
    """The parser of `python -m labs.LAB`, whose --help begins with `text`."""
    form = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=f"python -m labs.{lab}", description=text, formatter_class=form)


@contextmanager
def drawing(path: Path, width: float, height: float, dpi: int = 100, **style: Any) -> Iterator[Any]:
    """A figure of so many inches, written to `path` at the end of the block."""
    from matplotlib.figure import Figure  # takes a second, which every command would pay

    figure = Figure(figsize=(width, height), layout=style.pop("layout", "constrained"))
    yield figure
    with write_whole(path) as part:
        figure.savefig(part, format=path.suffix[1:] or "png", dpi=dpi, **style)


def of_run(run: Run) -> Row:
    """What every result says of its training: settings and pictures, epochs, seconds, and the machine."""
    seconds = sum(row["seconds"] for row in run.history)
    where = {**machine(), "device": run.environment["device"]}
    return {**run.settings, "epochs": len(run.history), "seconds": seconds, "machine": where}


def finished(run: Path, script: str) -> Row:
    """The checkpoint of the run of `script` in the folder `run`; ValueError, worded for the user, if it has no end."""
    checkpoint = load_checkpoint(run / "checkpoint.pth", script)
    if checkpoint is None or not checkpoint["finished"]:
        raise ValueError(f"{run} holds no finished run")
    return checkpoint


def to_keep(run: Path, script: str) -> Row:
    """The settings of a finished run that is worth keeping; ValueError, worded for the user, for any other."""
    settings = finished(run, script)["settings"]
    if settings.get("quick"):
        raise ValueError(f"{run} is a --quick run, which shows only that the lab works")
    return settings


def name_of(base: str, settings: Row, usual: Row) -> str:
    """`base`, and what of `settings` is not as `usual`, so that no run takes the place of another one's result."""
    differ = [(name, value) for name, value in settings.items() if name in usual and value != usual[name]]
    values = ("" if value is True else f"{value:g}" if isinstance(value, float) else value for _, value in differ)
    return base + "".join(f"_{name}{value}" for (name, _), value in zip(differ, values, strict=True))


def copy_whole(source: Path, target: Path) -> None:
    """Copies a file, whole or not at all, and says so."""
    with write_whole(target) as part:
        shutil.copyfile(source, part)
    print(f"Kept: {target}")
