"""Three U-Nets that find discs in noise: the third companion lab (the segmentation tutorial, sections 2 and 3).

    python -m labs.shapes_unet train                    the tutorial's U-Net, in the tutorial's way
    python -m labs.shapes_unet train --recipe ours      in ours
    python -m labs.shapes_unet train --recipe ours --validate    tries settings on other pictures than the scored ones
    python -m labs.shapes_unet train --out runs/mine --resume
    python -m labs.shapes_unet predict runs/mine --sigma 40     new pictures, others each time, into runs/mine
    python -m labs.shapes_unet noise RUN ...            Dice of finished runs against the noise of the pictures
    python -m labs.shapes_unet compare                  all networks, three seeds: the lab's tables and figures
    python -m labs.shapes_unet speed                    what a training costs in each of the two ways
    python -m labs.shapes_unet metrics                  the tutorial's matrices, why not accuracy, the networks' sizes

`train --recipe ours` ends, give or take a few digits of another machine's rounding, with

    200 pictures: Dice 0.9832, Jaccard 0.9680, lowest Dice 0.8132

and its run's folder gets `predictions.png` (picture, truth, probability, prediction) and `worst.png` beside the rest.
`compare` goes on where it was stopped.
"""

import argparse
import random
import time
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR
from tqdm import tqdm

from labs.commands import finished, lab_parser, to_keep
from labs.shapes.generator import Shapes, channels_first
from labs.shapes_unet.networks import NETWORKS, NoiseUnits, make_network
from labs.shapes_unet.scores import (
    SCORED,
    SCORED_SEED,
    VALIDATION_SEED,
    contrast_rows,
    metrics,
    plot_losses,
    plot_noise,
    plot_predictions,
    plot_worst,
    score,
    scored_pictures,
)
from lenet import count_parameters
from report.harness import run_in
from report.tables import RESULTS, Trainings, go_on, keep_curves, means, read_rows, write_json
from train_unet import train_steps
from training import ROOT, Row, Run, add_run_arguments, between, command, pick_device, told, write_rows

FIGURES = Path(__file__).parent
SCRIPT = "labs/shapes_unet.py"
EPOCHS, TIMED_STEPS = 5, 25
RECIPES = {  # the tutorial's width is 64; `steps` are those of an epoch
    "seed": {"base_channels": 16, "steps": 50, "batch_size": 4, "noise_units": False},
    "ours": {"base_channels": 8, "steps": 230, "batch_size": 2, "noise_units": True},
}
COMPARED = ("noise_units", "network", "norm", "base_channels", "steps", "batch_size", "seed")
TUTORIAL_BATCH = 32  # of its U-Net; its other two networks had 4
SIGMAS = (0, 5, 10, 20, 30, 40, 60, 80)  # of pictures to be scored on; trainings have 20
DEFAULTS = {"recipe": "seed", "network": "unet", "norm": True, "seed": 0, "validate": False, "quick": False}


def batches(seed: int, size: int, first_step: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches from `first_step` on, each of pictures that no other has: [B, 1, H, W] in [0, 1], masks [B, 2, H, W]."""
    generator = Shapes(seed=seed)
    for step in range(first_step, first_step + steps):
        yield channels_first(*generator(size, first=step * size))


def begin(settings: Row, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer, LRScheduler, Row]:
    """The network, its optimizer, its learning rate over all steps, and the loss as `train_steps` takes it."""
    torch.manual_seed(settings["seed"])
    network = make_network(settings["network"], settings["norm"], settings["base_channels"])
    if settings["noise_units"]:
        network = nn.Sequential(NoiseUnits(), network)
    network.to(device)
    if settings["recipe"] == "seed":
        optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4)
        loss = {"loss_function": F.binary_cross_entropy_with_logits, "max_norm": float("inf")}
        return network, optimizer, ConstantLR(optimizer, factor=1), loss
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.005, weight_decay=0.01)
    total = EPOCHS * settings["steps"]
    scheduler = OneCycleLR(optimizer, 0.005, total_steps=total, pct_start=max(0.2, 2 / total))  # it divides by the rise
    return network, optimizer, scheduler, {}  # the loss of train_unet.py, cross-entropy and Dice


def pictures_of(settings: Row) -> tuple[int, int]:
    """How many pictures a training is scored on, and of which seed."""
    return 4 if settings["quick"] else SCORED, VALIDATION_SEED if settings["validate"] else SCORED_SEED


def train(run: Run, device: torch.device) -> nn.Module:
    """Trains from the first step, or from the one after the run's checkpoint; the run's history says how it went."""
    settings = {**run.settings, "steps": 3} if run.settings["quick"] else run.settings
    steps = settings["steps"]
    images, masks = scored_pictures(*pictures_of(settings))
    network, optimizer, scheduler, loss_options = begin(settings, device)
    run.restore(network=network, optimizer=optimizer, scheduler=scheduler)
    for epoch in run.epochs(EPOCHS):
        first = run.steps_done
        left = batches(settings["seed"], settings["batch_size"], (epoch - 1) * steps + first, steps - first)
        bar = tqdm(left, f"epoch {epoch}/{EPOCHS}", steps, initial=first, unit="step", leave=False, disable=None)
        for loss in train_steps(network, bar, optimizer, scheduler, epoch, first + 1, **loss_options):
            run.step({"epoch": epoch, "loss": round(loss, 6)})
        dice, overlap = score(network, images, masks)
        train_loss = mean(row["loss"] for row in run.losses[-steps:])
        row = {"train_loss": train_loss, "dice": dice.mean().item(), "jaccard": overlap.mean().item()}
        # The tutorial validates on two pictures: what it would have read, and nine tenths of what other two would give.
        two = dice.view(-1, 2).mean(dim=1)
        low, high = two.quantile(torch.tensor([0.05, 0.95])).tolist()
        row |= {"lowest_dice": dice.min().item(), "dice_of_two": two[0].item(), "two_low": low, "two_high": high}
        row = run.record(row)
        print(f"epoch {epoch}/{EPOCHS}: train loss {train_loss:.4f}, Dice {row['dice']:.4f}, {row['seconds']:.0f} s")
    return network


def configurations() -> Iterator[Row]:
    """What is compared: the networks in the tutorial's way, ours, longer too, each part of ours, the full width.

    The tutorial's way at batches of 4 for all, then of 32 for all.
    """

    def one(recipe: str, **changes: Any) -> Row:
        given = {"network": "unet", "norm": True, "seed": 0, **RECIPES[recipe], **changes}
        return {"recipe": recipe, **{name: given[name] for name in COMPARED}}

    for network, norm, seed in product(NETWORKS, (True, False), range(3)):
        yield one("seed", network=network, norm=norm, seed=seed)
    for network, seed in product(NETWORKS, range(3)):
        yield one("ours", network=network, seed=seed)
    yield one("ours", steps=10 * RECIPES["ours"]["steps"])
    for seed in range(3):
        yield one("seed", noise_units=True, seed=seed)
        yield one("ours", noise_units=False, seed=seed)
    for network in NETWORKS:
        yield one("seed", network=network, base_channels=64)
    for network, seed in product(NETWORKS, range(3)):
        yield one("seed", network=network, batch_size=TUTORIAL_BATCH, seed=seed)
    yield one("seed", base_channels=64, batch_size=TUTORIAL_BATCH)


def compare(device: torch.device) -> None:
    """Trains every network whose row RESULTS does not have yet; the figures are those of our recipe's first seed."""
    table, losses, history = (RESULTS / "labs" / f"shapes_unet{name}.csv" for name in ("", "_losses", "_history"))
    ours = next(one for one in configurations() if one["recipe"] == "ours")
    rows = read_rows(table)

    def one(settings: Row) -> Row:
        out = ROOT / "runs" / "labs" / "shapes_unet" / "-".join(map(str, settings.values()))
        defaults = {**DEFAULTS, **RECIPES[settings["recipe"]]}
        with run_in(out, SCRIPT, {**defaults, **settings}, defaults, device) as run:
            network = train(run, device)
        if settings == ours:
            images, masks = scored_pictures(SCORED, SCORED_SEED)
            plot_predictions(FIGURES / "predictions.png", network, images[:3], masks[:3])
            plot_worst(FIGURES / "worst.png", network, SCORED, SCORED_SEED)
            write_rows(RESULTS / "labs" / "shapes_contrast.csv", contrast_rows(network))
        if settings["seed"] == 0:
            keep_curves(history, settings, run.history)
        if settings["seed"] == 0 and settings["recipe"] == "seed":
            keep_curves(losses, settings, run.losses)
            plot_losses(FIGURES / "losses.png", read_rows(losses))
        last = {name: run.history[-1][name] for name in list(run.history[-1])[2:-1]}
        return {"parameters": count_parameters(network), **last}

    def write_means() -> None:
        of_all = means(rows, ["recipe", *COMPARED])
        write_rows(table.with_stem("shapes_unet_means"), of_all)
        names = ("recipe", *COMPARED[:-1])  # all but the seed
        write_json(table.with_suffix(".json"), {"-".join(row[name] for name in names): row for row in of_all})

    trainings: Trainings = ((settings, partial(one, settings)) for settings in configurations())
    go_on(table, rows, trainings, write_means)


def network_of(run: Path, device: torch.device) -> nn.Module:
    """The network of a finished run, as its checkpoint has it."""
    checkpoint = finished(run, SCRIPT)
    network, *_ = begin(checkpoint["settings"], device)
    network.load_state_dict(checkpoint["network"])
    return network


def predict_new(args: argparse.Namespace, device: torch.device) -> None:
    """Draws what a run's network finds in four pictures that are new each time, or those of --seed."""
    network = network_of(args.run, device)
    seed = random.randrange(2**32) if args.seed is None else args.seed
    if args.nx % 16:
        raise ValueError(f"--nx {args.nx}: the networks halve the pictures four times, so give a multiple of 16")
    images, masks = channels_first(*Shapes(args.nx, args.nx, args.count, args.sigma, seed=seed)(4))
    dice, _ = score(network, images, masks)
    plot_predictions(args.run / "new.png", network, images, masks)
    print(f"seed {seed}: Dice {', '.join(f'{value:.4f}' for value in dice)}; drawn in {args.run / 'new.png'}")


def noise(runs: list[Path], device: torch.device) -> None:
    """Dice of finished runs, one of each recipe, on the same discs in more and less noise: for README.md."""
    rows: list[Row] = [{"sigma": sigma} for sigma in SIGMAS]
    run_of = {to_keep(run, SCRIPT)["recipe"]: run for run in runs}
    if len(run_of) < len(runs):
        raise ValueError("two of the runs have the same recipe: give one run of each")
    for recipe, run in run_of.items():
        network = network_of(run, device)
        for row in tqdm(rows, str(run), leave=False, disable=None):
            dice, _ = score(network, *channels_first(*Shapes(sigma=row["sigma"], seed=SCORED_SEED)(SCORED)))
            row[recipe] = round(dice.mean().item(), 6)
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    write_rows(RESULTS / "labs" / "shapes_noise.csv", rows)
    plot_noise(FIGURES / "noise.png", rows)


def speed() -> None:
    """CPU seconds of a training in each of the two ways, pictures and all; their steps are taken by turns."""
    trainings, seconds = {}, {}
    for name, recipe in RECIPES.items():
        network, optimizer, scheduler, loss_options = begin({**DEFAULTS, **recipe, "recipe": name}, torch.device("cpu"))
        left = batches(0, recipe["batch_size"], 0, TIMED_STEPS)
        trainings[name], seconds[name] = train_steps(network, left, optimizer, scheduler, **loss_options), []
    for _ in tqdm(range(TIMED_STEPS), "steps", leave=False, disable=None):
        for name, steps in trainings.items():
            began = time.process_time()
            next(steps)
            seconds[name].append(time.process_time() - began)
    result = {name: median(seconds[name]) * EPOCHS * recipe["steps"] for name, recipe in RECIPES.items()}
    result["ratio"] = result["ours"] / result["seed"]
    print(f"CPU seconds: seed {result['seed']:.0f}, ours {result['ours']:.0f}, {result['ratio']:.2f} times as many")
    write_json(RESULTS / "labs" / "shapes_speed.json", result)


def parse_arguments() -> argparse.Namespace:
    parser = lab_parser("shapes_unet", __doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    names = ("train", "predict", "noise", "compare", "speed", "metrics")
    training, predicting, scoring, comparing, *_ = (commands.add_parser(name) for name in names)
    add = training.add_argument
    add("--recipe", choices=list(RECIPES), help="(default: seed); it sets what has no default below")
    add("--noise-units", action=argparse.BooleanOptionalAction, help="pictures in units of their noise")
    add("--network", choices=list(NETWORKS), help="(default: unet)")
    add("--no-norm", dest="norm", action="store_false", default=None, help="without BatchNorm")
    add("--base-channels", type=between(1, 256), help="width of the first level; the tutorial's is 64")
    add("--steps", type=between(1, 10**6), help="steps an epoch")
    add("--batch-size", type=between(1, 1000), help="pictures a step; the tutorial's U-Net has 32")
    add("--seed", type=between(0, SCORED_SEED - 1), help="first weights and pictures (default: 0)")
    add("--validate", action="store_true", default=None, help="score on 200 other pictures")
    add("--quick", action="store_true", default=None, help="a few steps, to see that it runs")
    add_run_arguments(training, "shapes_unet")
    add = predicting.add_argument
    add("run", type=Path, metavar="RUN", help="the folder of a finished run")
    add("--seed", type=between(0, 2**32 - 1), help="of the pictures (default: another each time)")
    add("--sigma", type=between(0.0, 1000.0), default=20.0, help="the noise, in grey levels of 255 (default: 20)")
    add("--count", type=between(0, 1000), default=10, help="discs in a picture (default: 10)")
    add("--nx", type=between(48, 1024), default=128, help="pixels of a side (default: 128)")
    scoring.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the folder of a finished run")
    for one in (predicting, scoring, comparing):
        one.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    return parser.parse_args()


@command
def main() -> None:
    args = parse_arguments()
    with told():
        if args.what == "speed":
            return speed()
        if args.what == "metrics":
            return metrics(RESULTS / "labs" / "shapes_metrics.json")
        device = pick_device(args.device)
        if args.what == "compare":
            return compare(device)
        if args.what == "predict":
            return predict_new(args, device)
        if args.what == "noise":
            return noise(args.runs, device)
        run = Run(SCRIPT, args, {**DEFAULTS, **RECIPES[args.recipe or "seed"]}, device)
    with run:
        network = train(run, device)
        pictures = pictures_of(run.settings)
        images, masks = scored_pictures(*pictures)
        plot_predictions(run.out / "predictions.png", network, images[:3], masks[:3])
        plot_worst(run.out / "worst.png", network, *pictures)
        missing = {name: [1 - row[name] for row in run.history] for name in ("dice", "dice_of_two")}
        run.finish({"Loss": {"training": [row["train_loss"] for row in run.history]}, "1 - Dice": missing})
        dice, overlap = score(network, images, masks)
        means_of_all = f"Dice {dice.mean():.4f}, Jaccard {overlap.mean():.4f}, lowest Dice {dice.min():.4f}"
        print(f"{len(images)} pictures: {means_of_all}")


if __name__ == "__main__":
    main()
