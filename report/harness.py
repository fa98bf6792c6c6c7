"""One of many trainings, in a `Run` of its own: what experiments share around their loops."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from report.tables import Stopped
from training import ROOT, Row, Run

RUNS = ROOT / "runs" / "experiments"
CPU = torch.device("cpu")


@contextmanager
def run_in(out: Path, script: str, settings: Row, defaults: Row, device: torch.device = CPU) -> Iterator[Run]:
    """The `Run` of `script` in `out`, begun or gone on with; Ctrl-C in it is `Stopped`, which says nothing of --out."""
    args = argparse.Namespace(out=out, resume=(out / "checkpoint.pth").exists(), tensorboard=False, **settings)
    with Run(script, args, defaults, device) as run:
        try:
            yield run
        except KeyboardInterrupt:
            raise Stopped from None


@contextmanager
def run_of(name: str, settings: Row) -> Iterator[Run]:
    """The `Run` of the training of the experiment `name` with these settings."""
    out = RUNS / name / "-".join(str(value) for value in settings.values())
    with run_in(out, "report/experiments.py", settings, settings) as run:
        yield run
