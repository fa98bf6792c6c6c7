"""What a network finds in the 200 pictures that all are scored on: Dice and Jaccard, figures, and what it misses."""

from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from labs.shapes import Shapes, channels_first
from labs.shapes_networks import NETWORKS
from train_unet import dice_coefficient, jaccard
from training import Row, write_whole

SCORED = 200
SCORED_SEED = 10**6  # no training goes that far
CONTRASTS = (0, 10, 20, 40, 80, 254)  # grey levels between a disc and the ground; the noise has a deviation of 20


@cache
def scored_pictures(count: int) -> tuple[Tensor, Tensor]:
    """The pictures [B, 1, H, W] that every network is scored on, and their masks [B, 2, H, W]."""
    return channels_first(*Shapes(seed=SCORED_SEED)(count))


@torch.inference_mode()
def predict(network: nn.Module, images: Tensor) -> Tensor:
    """The probability [B, H, W] of each pixel to be in a disc."""
    network.eval()
    device = next(network.parameters()).device
    return torch.cat([torch.sigmoid(network(part.to(device)))[:, 1].cpu() for part in images.split(20)])


def score(network: nn.Module, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Dice and Jaccard of each picture's prediction, [B] each."""
    found = (predict(network, images) >= 0.5).float()
    return dice_coefficient(found, masks[:, 1]), jaccard(found, masks[:, 1])


def plot_predictions(path: Path, network: nn.Module, images: Tensor, masks: Tensor) -> None:
    """The seed's four panels, a row a picture: what it shows, where discs are, their probability, the prediction."""
    probabilities = predict(network, images)
    figure = Figure(figsize=(11, 2.75 * len(images) + 0.3), layout="constrained")
    rows = figure.subplots(len(images), 4, squeeze=False)
    for row, image, mask, probability in zip(rows, images, masks, probabilities, strict=True):
        for axes, picture, style in zip(
            row,
            (image[0], mask[1], probability, probability >= 0.5),
            ({}, {}, {"cmap": "hot", "vmin": 0, "vmax": 1}, {}),
            strict=True,
        ):
            axes.imshow(picture.numpy(), **style)
            axes.axis("off")
    for axes, title in zip(rows[0], ("Picture", "Ground truth", "Probability", "Prediction"), strict=True):
        axes.set_title(title)
    with write_whole(path) as part:
        figure.savefig(part, dpi=100)


def faint_share(index: int) -> float:
    """The share of the disc pixels of scored picture `index` that differ from the ground by less than the noise."""
    generator = Shapes(seed=SCORED_SEED)
    grey, mask = generator.clean(index)
    return float((grey[mask[..., 1]] - 1 < generator.sigma).mean()) if mask[..., 1].any() else 0.0


def plot_worst(path: Path, network: nn.Module, images: Tensor, masks: Tensor) -> None:
    """The pictures of lowest Dice (red: wrongly taken for disc, blue: missed), and Dice against faint discs."""
    dice, _ = score(network, images, masks)
    found = predict(network, images) >= 0.5
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    sheet, right = figure.subfigures(1, 2, width_ratios=(2, 1))
    for axes, index in zip(sheet.subplots(2, 4).flat, dice.argsort().tolist(), strict=False):
        picture = images[index].expand(3, -1, -1).permute(1, 2, 0).clone()
        truth = masks[index, 1] > 0
        picture[found[index] & ~truth] = torch.tensor([1.0, 0.2, 0.2])
        picture[truth & ~found[index]] = torch.tensor([0.2, 0.4, 1.0])
        axes.imshow(picture.numpy())
        axes.set_title(f"Dice {dice[index]:.3f}, faint {faint_share(index):.0%}", fontsize=9)
    for axes in sheet.axes:
        axes.axis("off")
    axes = right.subplots()
    axes.scatter([100 * faint_share(index) for index in range(len(images))], dice.numpy(), s=12, alpha=0.6)
    axes.set(xlabel="disc pixels fainter than the noise, %", ylabel="Dice", title=f"{len(images)} pictures")
    axes.grid(alpha=0.3)
    with write_whole(path) as part:
        figure.savefig(part, dpi=100)


def contrast_rows(network: nn.Module) -> list[Row]:
    """By the grey levels between disc and ground: share of all disc pixels, part found, share of the missed."""
    images, masks = scored_pictures(SCORED)
    found, truth = (predict(network, images) >= 0.5).numpy(), masks[:, 1].numpy() > 0
    contrast = np.stack([Shapes(seed=SCORED_SEED).clean(index)[0] - 1 for index in range(SCORED)])
    rows = []
    for low, high in pairwise(CONTRASTS):
        own = truth & (contrast >= low) & (contrast < high)
        row = {"contrast": f"{low} to {high}", "share": own.sum() / truth.sum(), "found": found[own].mean()}
        rows.append({**row, "of_the_missed": (own & ~found).sum() / max(1, (truth & ~found).sum())})
    return rows


def plot_losses(path: Path, rows: list[dict[str, str]]) -> None:
    """The loss of every step (question 2), by network, with and without BatchNorm."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for axes, norm in zip(figure.subplots(1, 2, sharey=True), ("True", "False"), strict=True):
        for network in NETWORKS:
            wanted = {"recipe": "seed", "network": network, "norm": norm, "base_channels": "16"}.items()
            own = [row for row in rows if wanted <= row.items()]
            axes.plot([int(row["step"]) for row in own], [float(row["loss"]) for row in own], label=network, lw=1)
        axes.set(title="with BatchNorm" if norm == "True" else "without", xlabel="step", ylim=(0, 0.8))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.axes[0].set_ylabel("loss")
    with write_whole(path) as part:
        figure.savefig(part, dpi=100)
