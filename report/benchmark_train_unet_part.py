"""Speed of train_unet.py's whole loop against the same steps over tensors that are ready in memory.

python -m report.benchmark_train_unet_part [FOLDER]
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader

from report.draw_car import draw_car
from train_unet import WEIGHT_DECAY, CarDataset, epoch_batches, find_pairs, shape_for, train_steps
from training import epoch_generator
from unet import UNet

TRAIN_STAGES = ((96, 8), (160, 8), (572, 2))  # short side in pixels, pictures a step
TRAIN_PICTURES = {96: 48, 160: 48, 572: 8}  # in an epoch
TRAIN_WORKERS = (0, 2)
TRAIN_ROUNDS = 5


def seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def draw_photographs(folder: Path, count: int = 12) -> None:
    """`count` drawn cars of 858x572 pixels with their masks in `folder`, as `find_pairs` takes them."""
    for name in ("imgs", "masks"):
        (folder / name).mkdir()
    for seed in range(count):
        photo, mask = draw_car(seed, 858, 572)
        photo.save(folder / "imgs" / f"car{seed:02}_01.jpg", quality=92)
        Image.fromarray(np.asarray(mask).astype(np.uint8)).save(folder / "masks" / f"car{seed:02}_01.png")


def benchmark_train_unet(data: Path | None = None) -> dict[str, Any]:
    """Images/s of train_unet.py's whole loop, from files to weights, and their ratio to those over ready tensors.

    At each size the same network (`base_channels` 16) takes the same steps on one epoch after the first, so that what
    fits is held in memory already, as in a training. `data` is a folder for `find_pairs`; without it cars are drawn.
    The pictures are repeated or cut to `TRAIN_PICTURES`. A whole epoch includes starting its workers, and with few
    pictures that weighs more than in a training.
    """
    results: dict[str, Any] = {"photographs": "real" if data else "drawn"}
    with TemporaryDirectory() as name:
        if data is None:
            draw_photographs(Path(name))
        found = find_pairs(data or Path(name), check=False)
        for size, batch_size in TRAIN_STAGES:
            count = TRAIN_PICTURES[size]
            pairs = (found * -(-count // len(found)))[:count]
            dataset = CarDataset(pairs, *shape_for(pairs, size), seed=0, quiet=True)
            torch.manual_seed(0)
            model = UNet(3, 1, 16).to(memory_format=torch.channels_last)
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.001, weight_decay=WEIGHT_DECAY)
            scheduler = OneCycleLR(optimizer, 0.001, total_steps=100_000)
            batches = epoch_batches(count, batch_size, epoch_generator(0, 2), rank=0, ranks=1)
            ready = list(DataLoader(dataset, batch_sampler=batches))
            variants = {"ready": lambda ready=ready: ready}
            for workers in TRAIN_WORKERS:
                variants[f"{workers}_workers"] = lambda workers=workers, dataset=dataset, batches=batches: DataLoader(
                    dataset, batch_sampler=batches, num_workers=workers
                )
            speeds: dict[str, list[float]] = {variant: [] for variant in variants}
            for turn in range(TRAIN_ROUNDS + 1):  # the first warms up
                for variant, source in variants.items():
                    steps = train_steps(model, source(), optimizer, scheduler)
                    taken = seconds(lambda steps=steps: list(steps))
                    if turn:
                        speeds[variant].append(count / taken)
            results[str(size)] = {
                "images_per_second": {variant: median(values) for variant, values in speeds.items()},
                "over_ready": {
                    variant: median(a / b for a, b in zip(values, speeds["ready"], strict=True))
                    for variant, values in speeds.items()
                    if variant != "ready"
                },
            }
            print(size, results[str(size)], flush=True)
    return results


if __name__ == "__main__":
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    print(benchmark_train_unet(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
