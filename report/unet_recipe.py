"""The experiment `unet_recipe`: what a training of the U-Net could be helped by.

    python -m report.experiments unet_recipe --data DIR

Each lever alone, and four together, for some ten minutes on small pictures (the two wide networks for half an hour);
scored on the selection cars, since a choice is made by it. What helps is gone in the end: the network is a plain
`UNet`, and but for the two wide ones as narrow as in model.pth.
"""

import argparse
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader

from carvana import CarDataset, find_pairs, shape_for, split_by_car
from report.best import Averaged
from report.harness import CPU, run_of
from report.tables import Rows, Trainings
from train_unet import (
    DEFAULTS,
    WEIGHT_DECAY,
    dice_coefficient,
    epoch_batches,
    has_bfloat16,
    mean,
    score_pictures,
    train_steps,
)
from training import Row, epoch_generator
from unet import UNet, add_norms

SIZE, BATCH_SIZE, EPOCHS, LR = 160, 8, 2, 0.003
AVERAGED_STEPS, EDGE_WEIGHT = 100, 3
LEVERS: dict[str, set[str]] = {
    "nothing": set(),
    "averaged": {"averaged"},
    "normalized": {"normalized"},
    "edges": {"edges"},
    "sharpness": {"sharpness"},
    "all": {"averaged", "normalized", "edges", "sharpness"},
    "context": {"context"},
    "wide": {"wide"},
    "wide_normalized": {"wide", "normalized"},
    "scores": {"scores"},
    "scores_and_masks": {"scores_and_masks"},
    "scores_beside_dice": {"scores_beside_dice"},
}
TEACHER = "wide_normalized"
MASKS_SHARES = {  # of what is learned in the cross-entropy and in Dice; the rest is what the teacher says
    "scores": (0.0, 0.0),
    "scores_and_masks": (0.5, 0.5),
    "scores_beside_dice": (0.0, 1.0),
}


def edge_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """The loss of train_unet.py, but pixels less than three away from the outline count three times."""
    edge = F.max_pool2d(masks, 5, stride=1, padding=2) + F.max_pool2d(-masks, 5, stride=1, padding=2)  # 1 there
    weights = 1 + (EDGE_WEIGHT - 1) * edge
    cross_entropy = F.binary_cross_entropy_with_logits(scores, masks, weights) / weights.mean()
    return cross_entropy + 1 - dice_coefficient(torch.sigmoid(scores), masks).mean()


def sharpened(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each of `images` [B, 3, H, W] in [0, 1] softer or sharper by a random amount."""
    amount = (2 * torch.rand(len(images), 1, 1, 1, generator=generator) - 1).to(images.device)
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return (images + amount * (images - soft)).clamp(0, 1)


def halved(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures and masks at half the size, in multiples of 16: there, a unit sees twice as much of a car."""
    size = [16 * round(side / 32) for side in images.shape[2:]]
    return F.interpolate(images, size, mode="area"), F.interpolate(masks, size, mode="area").round()


def taught(teacher: UNet, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """`batches` with [B, 2, H, W]: the masks, and each pixel's probability in the eyes of `teacher` (Hinton et al.)."""
    for images, masks in batches:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16(CPU)):
            scores = teacher(images.to(memory_format=torch.channels_last))
        yield images, torch.cat([masks, torch.sigmoid(scores.float())], dim=1)


def taught_loss(scores: Tensor, targets: Tensor, masks_shares: tuple[float, float]) -> Tensor:
    """The loss of train_unet.py, of the masks and a teacher's probabilities mixed; a mix for each of its two parts."""
    masks, said = targets.chunk(2, dim=1)
    in_cross_entropy, in_dice = (share * masks + (1 - share) * said for share in masks_shares)
    dice = dice_coefficient(torch.sigmoid(scores), in_dice).mean()
    return F.binary_cross_entropy_with_logits(scores, in_cross_entropy) + 1 - dice


def fold_norms(network: nn.Module) -> None:
    """Undoes `add_norms`: what each has learned goes into the convolution before it, which then gives the same."""
    for name, part in network.eval().named_children():
        if isinstance(part, nn.Sequential):
            layers = []
            for layer in part:
                if isinstance(layer, nn.BatchNorm2d):
                    layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
                else:
                    layers.append(layer)
            setattr(network, name, nn.Sequential(*layers))


def recipe(args: argparse.Namespace, rows: Rows) -> Trainings:
    """Which lever helps?

    Expected: normalization gives most, for nothing else keeps the numbers' size here; averaging a little; edges help
    Dice where it is lost; sharpness does nothing on these cars, whose photographs are all equally soft. Half of
    the steps at half the size help a little where much of a car is mistaken. A network twice as wide is better
    by 0.002 (it was not; so the teacher is one with normalization, and that is better by 0.004). Its scores, which say
    where an outline is in doubt, hand half of that on to a narrow one, with the masks beside them or without (they did
    not: they did harm; Dice has its best value not at such a target but at a sharp one, so last, Dice learns the masks
    and only the cross-entropy the scores: that does no harm, and helps by 0.001 at most).
    """
    training, selection, _ = split_by_car(find_pairs(args.data), DEFAULTS["val_cars"], seed=0)
    dataset = CarDataset(training, *shape_for(training, SIZE), seed=0)
    steps = EPOCHS * (len(dataset) // BATCH_SIZE)

    def batches(epoch: int, seed: int, levers: set[str]) -> Iterator[tuple[Tensor, Tensor]]:
        dataset.epoch, dataset.seed = epoch, seed
        order = epoch_batches(len(dataset), BATCH_SIZE, epoch_generator(seed, epoch), 0, 1)
        for step, (images, masks) in enumerate(DataLoader(dataset, batch_sampler=order)):
            if "sharpness" in levers:
                images = sharpened(images, epoch_generator(seed, epoch, len(dataset) + 1 + step))
            yield halved(images, masks) if "context" in levers and step % 2 else (images, masks)

    def fit(settings: Row) -> tuple[UNet, float]:
        seed, levers = settings["seed"], LEVERS[settings["levers"]]
        masks_shares = MASKS_SHARES.get(settings["levers"])
        teacher = None if masks_shares is None else fit({"levers": TEACHER, "seed": seed})[0]
        torch.manual_seed(seed)
        model = UNet(3, 1, base_channels=32 if "wide" in levers else 16)
        if "normalized" in levers:
            add_norms(model)
        net = Averaged(model, AVERAGED_STEPS) if "averaged" in levers else model
        net.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=WEIGHT_DECAY)
        scheduler = OneCycleLR(optimizer, LR, total_steps=steps, pct_start=0.05, cycle_momentum=False)
        with run_of("unet_recipe", settings) as run:
            run.restore(net=net, optimizer=optimizer, scheduler=scheduler)
            for epoch in run.epochs(EPOCHS):
                parts = batches(epoch, seed, levers)
                loss = edge_loss if "edges" in levers else None
                if teacher is not None:
                    parts, loss = taught(teacher, parts), partial(taught_loss, masks_shares=masks_shares)
                losses = list(train_steps(net, parts, optimizer, scheduler, epoch, loss_function=loss))
                run.record({"train_loss": sum(losses) / len(losses)})
        plain = net.average.module if "averaged" in levers else model
        fold_norms(plain)
        return plain, sum(row["seconds"] for row in run.history)

    def train(settings: Row) -> Row:
        model, seconds = fit(settings)
        scores = score_pictures(model.to(CPU), selection, SIZE, "selection cars")
        return {"dice": mean(scores, "dice"), "lowest": min(x["dice"] for x in scores), "seconds": round(seconds, 1)}

    for name, seed in product(LEVERS, range(min(2, args.seeds))):
        settings = {"levers": name, "seed": seed}
        yield settings, partial(train, settings)
