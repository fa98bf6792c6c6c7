"""Three U-Nets that find discs in noise: the third companion lab (seed 003, sections 2 and 3).

    python -m labs.shapes_unet train                    the seed's U-Net, in the seed's way
    python -m labs.shapes_unet train --network add --recipe ours
    python -m labs.shapes_unet train --out runs/mine --resume
    python -m labs.shapes_unet compare                  all networks, three seeds: the lab's tables and figures
    python -m labs.shapes_unet metrics                  Jaccard and Dice of the seed's matrices, and why not accuracy

`train` ends with a line such as

    200 pictures: Dice ..., Jaccard ..., lowest Dice ...

and its run's folder gets `predictions.png` (picture, truth, probability, prediction) and `worst.png` beside the rest.
`compare` goes on where it was stopped.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR
from tqdm import tqdm

from labs.shapes import FIGURES, Shapes, channels_first
from labs.shapes_networks import NETWORKS, make_network
from labs.shapes_scores import (
    SCORED,
    contrast_rows,
    plot_losses,
    plot_predictions,
    plot_worst,
    score,
    scored_pictures,
)
from lenet import count_parameters
from report.experiments import means, read_table
from train_unet import dice_coefficient, jaccard, train_steps
from training import Row, Run, add_run_arguments, pick_device, write_rows

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "report" / "results" / "labs"
SCRIPT = "labs/shapes_unet.py"
DEFAULTS = {"network": "unet", "norm": True, "recipe": "seed", "base_channels": 16, "seed": 0, "quick": False}
EPOCHS, STEPS, BATCH_SIZE = 5, 50, 4
LIMITS = {"base_channels": (1, 256), "seed": (0, 2**31)}


def make_optimizer(recipe: str, network: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
    if recipe == "seed":
        optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4)
        return optimizer, ConstantLR(optimizer, factor=1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.01)
    return optimizer, OneCycleLR(optimizer, 0.01, total_steps=steps, pct_start=0.2)


def batches(seed: int, first_step: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches from `first_step` on, each of pictures that no other has: [B, 1, H, W] in [0, 1], masks [B, 2, H, W]."""
    generator = Shapes(seed=seed)
    for step in range(first_step, first_step + steps):
        yield channels_first(*generator(BATCH_SIZE, first=step * BATCH_SIZE))


def train(run: Run, device: torch.device) -> nn.Module:
    """Trains from the first step, or from the one after the run's checkpoint; the run's history says how it went."""
    settings = run.settings
    steps, count = (3, 4) if settings["quick"] else (STEPS, SCORED)
    images, masks = scored_pictures(count)
    torch.manual_seed(settings["seed"])
    network = make_network(settings["network"], settings["norm"], settings["base_channels"]).to(device)
    optimizer, scheduler = make_optimizer(settings["recipe"], network, EPOCHS * steps)
    run.restore(network=network, optimizer=optimizer, scheduler=scheduler)
    training: dict[str, Any] = {}  # ours: the U-Net's loss and clipping, as in train_unet.py
    if settings["recipe"] == "seed":
        training = {"loss_function": F.binary_cross_entropy_with_logits, "max_norm": float("inf")}
    for epoch in run.epochs(EPOCHS):
        first = run.steps_done
        left = batches(settings["seed"], (epoch - 1) * steps + first, steps - first)
        bar = tqdm(left, f"epoch {epoch}/{EPOCHS}", steps, initial=first, unit="step", leave=False, disable=None)
        for loss in train_steps(network, bar, optimizer, scheduler, epoch, first + 1, **training):
            run.step({"epoch": epoch, "loss": round(loss, 6)})
        dice, overlap = score(network, images, masks)
        train_loss = mean(row["loss"] for row in run.losses[-steps:])
        row = {"train_loss": train_loss, "dice": dice.mean().item(), "jaccard": overlap.mean().item()}
        # The seed validates on two pictures; the lab's text shows what that is worth.
        row = run.record({**row, "lowest_dice": dice.min().item(), "dice_of_two": dice[:2].mean().item()})
        print(f"epoch {epoch}/{EPOCHS}: train loss {train_loss:.4f}, Dice {row['dice']:.4f}, {row['seconds']:.0f} s")
    return network


def configurations() -> Iterator[Row]:
    """What is compared: the seed's recipe over all networks, ours, and once the seed's width of 64."""
    for network, norm, seed in product(NETWORKS, (True, False), range(3)):
        yield {"recipe": "seed", "network": network, "norm": norm, "base_channels": 16, "seed": seed}
    for seed in range(3):
        yield {"recipe": "ours", "network": "unet", "norm": True, "base_channels": 16, "seed": seed}
    for network in NETWORKS:
        yield {"recipe": "seed", "network": network, "norm": True, "base_channels": 64, "seed": 0}


def compare(device: torch.device) -> None:
    """Trains every network whose row RESULTS does not have yet; the figures are those of our recipe's first seed."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    FIGURES.mkdir(parents=True, exist_ok=True)
    table, steps = RESULTS / "shapes_unet.csv", RESULTS / "shapes_unet_losses.csv"
    for settings in configurations():
        rows, losses = read_table(table), read_table(steps)
        as_text = {name: str(value) for name, value in settings.items()}
        if any(as_text.items() <= row.items() for row in rows):
            continue
        out = ROOT / "runs" / "labs" / "shapes_unet" / "-".join(as_text.values())
        args = argparse.Namespace(out=out, resume=True, tensorboard=False, quick=False, **settings)
        with Run(SCRIPT, args, DEFAULTS, device) as run:
            network = train(run, device)
        last = {name: run.history[-1][name] for name in ("dice", "jaccard", "lowest_dice")}
        seconds = round(sum(row["seconds"] for row in run.history), 1)
        row = {**as_text, "parameters": count_parameters(network), **last, "seconds": seconds}
        write_rows(table, [*rows, row])
        write_rows(table.with_stem("shapes_unet_means"), means(read_table(table), list(settings)))
        if settings["seed"] == 0:
            losses = [one for one in losses if not as_text.items() <= one.items()]
            write_rows(steps, losses + [{**as_text, "step": one["step"], "loss": one["loss"]} for one in run.losses])
            history = read_table(table.with_stem("shapes_unet_history"))
            write_rows(table.with_stem("shapes_unet_history"), history + [{**as_text, **one} for one in run.history])
        if settings["seed"] == 0 and settings["recipe"] == "ours":
            images, masks = scored_pictures(SCORED)
            plot_predictions(FIGURES / "shapes_predictions.png", network, images[:3], masks[:3])
            plot_worst(FIGURES / "shapes_worst.png", network, images, masks)
            write_rows(RESULTS / "shapes_contrast.csv", contrast_rows(network))
    plot_losses(FIGURES / "shapes_losses.png", read_table(steps))


def metrics() -> None:
    """Question 3's four values, as the seed prints them; and section 2.4.3 on a picture that is nine tenths ground."""
    eye, ones, zeros = torch.eye(3), torch.ones(3, 3), torch.zeros(3, 3)
    for a, b in ((eye, eye), (eye, ones), (zeros, ones), (zeros, zeros)):
        print(f"Jaccard {jaccard(a, b):.4e}, Dice {dice_coefficient(a, b):.4e}")
    truth = torch.zeros(100, 100)
    truth[:20, :50] = 1
    half = truth.clone()
    half[:, 25:] = 0
    for name, found in (("nothing", torch.zeros(100, 100)), ("half of the disc", half), ("all of it", truth)):
        right = (found == truth).float().mean()
        dice, overlap = dice_coefficient(found, truth), jaccard(found, truth)
        print(f"found {name}: accuracy {right:.1%}, Dice {dice:.3f}, Jaccard {overlap:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "compare", "metrics"))
    parser.add_argument("--network", choices=list(NETWORKS), help="(default: unet)")
    parser.add_argument("--no-norm", dest="norm", action="store_false", default=None, help="without BatchNorm")
    parser.add_argument("--recipe", choices=("seed", "ours"), help="(default: seed)")
    parser.add_argument("--base-channels", type=int, help="width of the first level (default: 16; the seed's is 64)")
    parser.add_argument("--seed", type=int, help="first weights and pictures (default: 0)")
    parser.add_argument("--quick", action="store_true", default=None, help="a few steps, to see that it runs")
    add_run_arguments(parser, "shapes_unet")
    args = parser.parse_args()
    for name, (low, high) in LIMITS.items():
        if (value := getattr(args, name)) is not None and not low <= value <= high:
            sys.exit(f"error: --{name.replace('_', '-')} must be from {low} to {high}, not {value}")
    if args.what == "metrics":
        return metrics()
    try:
        device = pick_device(args.device)
        if args.what == "compare":
            return compare(device)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    with Run(SCRIPT, args, DEFAULTS, device) as run:
        network = train(run, device)
        images, masks = scored_pictures(4 if run.settings["quick"] else SCORED)
        plot_predictions(run.out / "predictions.png", network, images[:3], masks[:3])
        plot_worst(run.out / "worst.png", network, images, masks)
        missing = {name: [1 - row[name] for row in run.history] for name in ("dice", "dice_of_two")}
        run.finish({"Loss": {"training": [row["train_loss"] for row in run.history]}, "1 - Dice": missing})
        dice, overlap = score(network, images, masks)
        means_of_all = f"Dice {dice.mean():.4f}, Jaccard {overlap.mean():.4f}, lowest Dice {dice.min():.4f}"
        print(f"{len(images)} pictures: {means_of_all}")


if __name__ == "__main__":
    main()
