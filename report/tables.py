"""The results: rows and JSON read and written, means with their intervals, and going on where a command was stopped.

A row of an experiment begins with its settings, the last of which tell apart what is averaged over (`UNITS`); its
results come after them.
"""

import csv
import json
import math
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch  # training.py has loaded it already

from training import ROOT, Row, write_rows, write_whole

RESULTS = ROOT / "report" / "results"
UNITS = ("seed", "fold", "car", "photograph")  # a mean is over them
Rows = list[dict[str, str]]  # as a CSV file has them
Trainings = Iterable[tuple[Row, Callable[[], Row]]]  # what tells a training from the others, and how to make its row


class Stopped(Exception):
    """Ctrl-C in one of many trainings; the command that goes on is the one that was typed."""


def read_rows(path: Path, needed: bool = False) -> Rows:
    """The rows of a CSV file; none where there is no file yet, or ValueError if it is `needed`, or is no table."""
    if not path.exists():
        if needed:
            raise ValueError(f"there is no {path}: make the runs first")
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV file: {error}") from None


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as part:
        part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, str | int]:
    """What a result was made or a speed was measured on."""
    cpu = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line for line in lines if line.startswith("model name")).partition(": ")[2]
    return {
        "cpu": cpu,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "torch": str(torch.__version__),
        "date": date.today().isoformat(),
    }


@cache
def student_t(freedom: int) -> float:
    """What Student's t of `freedom` degrees stays within, either way, 95 times of 100.

    Its distribution is a finite sum in t = sqrt(freedom) tan(angle): Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        sin, cos = math.sin(angle), math.cos(angle)
        term, total = cos if freedom % 2 else 1.0, 0.0
        for power in range(freedom % 2, freedom - 1, 2):
            total += term
            term *= (power + 1) / (power + 2) * cos * cos
        within = 2 / math.pi * (angle + sin * total) if freedom % 2 else sin * total
        low, high = (angle, high) if within < 0.95 else (low, angle)
    return math.sqrt(freedom) * math.tan(angle)


def interval(values: Iterable[float]) -> tuple[float, float | None]:
    """The mean of independent `values`, and half the width of its 95% interval; None for a single one."""
    values = list(values)
    half = student_t(len(values) - 1) * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return mean(values), half


def matching(rows: Rows, settings: Row) -> Rows:
    """The rows that have these settings."""
    wanted = {name: str(value) for name, value in settings.items()}.items()
    return [row for row in rows if wanted <= row.items()]


def grouped(rows: Rows, names: Iterable[str]) -> dict[tuple[str, ...], Rows]:
    """The rows that have the same values in the columns `names`, by these."""
    groups: dict[tuple[str, ...], Rows] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def by_unit(rows: Rows, name: str) -> dict[tuple[str, ...], float]:
    """Column `name` for each independent unit of one setting's rows: the mean of a car's photographs, else each row."""
    units = ["car"] if "car" in rows[0] else [unit for unit in UNITS if unit in rows[0]]
    return {unit: mean(float(row[name]) for row in own) for unit, own in grouped(rows, units).items()}


def paired(ours: dict[Any, float], theirs: dict[Any, float]) -> Row:
    """What `ours` gain over `theirs`, both by unit (seed, fold, car): the mean over the units that both have.

    What the two share, such as a hard car, is not in the differences, so their interval is the right one.
    """
    gains = [value - theirs[unit] for unit, value in ours.items() if unit in theirs]
    gain, half = interval(gains)
    return {"gain": gain, "gain_interval": half, "better": sum(gain > 0 for gain in gains)}


def means(rows: Rows, settings: Iterable[str], base: dict[str, str] | None = None) -> list[Row]:
    """A row for each of the `settings`, `UNITS` left out: how many units; each result's mean, interval and extremes.

    With a `base`, such as {"levers": "nothing"}, also what each gains over the same setting with these values.
    """
    by = [name for name in settings if name not in UNITS]
    groups, table = grouped(rows, by), []
    for setting, own in groups.items():
        row: Row = dict(zip(by, setting, strict=True))
        others = groups.get(tuple((base or {}).get(name, value) for name, value in row.items()), own)
        for name in [name for name in rows[0] if name not in (*by, *UNITS)]:
            values = by_unit(own, name)
            row["count"] = len(values)
            row[name], row[f"{name}_interval"] = interval(values.values())
            row[f"{name}_low"], row[f"{name}_high"] = min(values.values()), max(values.values())
            if base and name != "seconds":
                gains = paired(values, by_unit(others, name)) if others is not own else {}
                row |= {f"{name}_{part}": gains.get(part) for part in ("gain", "gain_interval")}
        table.append(row)
    return table


def keep_curves(path: Path, settings: Row, history: list[Row]) -> None:
    """Adds a training's rows, if it has any, to those of the other trainings in the file `path`."""
    kept = read_rows(path)
    again = matching(kept, settings)  # of a command that was killed before it wrote the training's row
    if history:
        write_rows(path, [row for row in kept if row not in again] + [{**settings, **row} for row in history])


@contextmanager
def going_on() -> Iterator[None]:
    """Ctrl-C in the block ends the command with 130, and says that it goes on when it is given again."""
    try:
        yield
    except (KeyboardInterrupt, Stopped):
        print("\nStopped. The same command goes on.", file=sys.stderr)
        sys.exit(130)


def go_on(path: Path, rows: Rows, trainings: Trainings, after: Callable[[], object] = lambda: None) -> None:
    """Makes those of `trainings` that the CSV file `path`, whose rows are `rows`, does not have yet.

    Each new row is added to `rows`, written and printed; then `after()` is called. Ctrl-C ends the command with 130.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with going_on():
        for settings, train in trainings:
            if matching(rows, settings):
                continue
            row = {name: "" if value is None else str(value) for name, value in {**settings, **train()}.items()}
            rows.append(row)
            write_rows(path, rows)
            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
            after()
