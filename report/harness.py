"""One of many trainings, in a `Run` of its own: what experiments share around their loops."""

import argparse
from collections.abc import Callable, Iterator
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


def climb(lr: float, score: Callable[[float], float], choosing: int, seeds: int) -> Iterator[tuple[float, range]]:
    """Learning rates, each with the seeds to be trained before the next one is asked for; the last is the best.

    Beginning at `lr`, goes on by doubling and halving until the rate of highest `score`, with `choosing` seeds, has
    both neighbours; that one then gets all `seeds`.
    """
    scores: dict[float, float] = {}
    best = None
    while best != lr:
        lr = best or lr
        for rate in (lr, lr / 2, lr * 2):
            if rate not in scores:
                yield rate, range(choosing)
                scores[rate] = score(rate)
        best = max(scores, key=scores.__getitem__)
    yield lr, range(choosing, seeds)
