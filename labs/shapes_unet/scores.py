"""What a network finds in the 200 pictures that all are scored on: Dice and Jaccard, figures, and what it misses."""

from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from labs.commands import drawing
from labs.shapes.generator import Shapes, channels_first
from labs.shapes_unet.networks import NETWORKS, make_network
from report.tables import Rows, matching, write_json
from train_unet import dice_coefficient, jaccard
from training import Row

SCORED = 200
SCORED_SEED, VALIDATION_SEED = 10**6, 10**6 + 1  # no training has such a seed
CONTRASTS = (0, 2, 5, 10, 20, 40, 254)  # grey levels between a disc and the ground; the noise has a deviation of 20
FAINT = 10


@cache
def scored_pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """The pictures [B, 1, H, W] that networks are scored on, and their masks [B, 2, H, W]."""
    return channels_first(*Shapes(seed=seed)(count))


@cache
def contrasts(count: int, seed: int) -> Tensor:
    """By how many grey levels these pictures differ from their ground before the noise, [B, H, W]."""
    return torch.from_numpy(np.stack([Shapes(seed=seed).clean(index)[0] for index in range(count)])) - 1


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
    """The tutorial's four panels, a row a picture: it itself, where discs are, their probability, the prediction."""
    probabilities = predict(network, images)
    with drawing(path, 11, 2.75 * len(images) + 0.3) as figure:
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


def plot_worst(path: Path, network: nn.Module, count: int, seed: int) -> None:
    """The pictures of lowest Dice with the contrast of what was missed, and Dice against the share of faint discs."""
    images, masks = scored_pictures(count, seed)
    contrast, truth = contrasts(count, seed), masks[:, 1] > 0
    dice, _ = score(network, images, masks)
    found = predict(network, images) >= 0.5
    with drawing(path, 12, 5) as figure:
        sheet, right = figure.subfigures(1, 2, width_ratios=(2.1, 1))
        sheet.suptitle(
            "Lowest Dice, and the contrast of what was missed (blue; red: wrongly taken for disc)", fontsize=11
        )
        for axes, index in zip(sheet.subplots(2, 4).flat, dice.argsort().tolist(), strict=False):
            picture = images[index].expand(3, -1, -1).permute(1, 2, 0).clone()
            missed = truth[index] & ~found[index]
            picture[found[index] & ~truth[index]] = torch.tensor([1.0, 0.2, 0.2])
            picture[missed] = torch.tensor([0.2, 0.4, 1.0])
            axes.imshow(picture.numpy())
            levels = f"contrast {contrast[index][missed].median():.0f}" if missed.any() else "nothing missed"
            axes.set_title(f"{dice[index]:.3f}, {levels}", fontsize=9)
        for axes in sheet.axes:
            axes.axis("off")
        axes = right.subplots()
        faint = ((contrast < FAINT) & truth).sum(dim=(1, 2)) / truth.sum(dim=(1, 2))
        axes.scatter(100 * faint.numpy(), dice.numpy(), s=12, alpha=0.6)
        share = np.linspace(0, faint.max().item())
        axes.plot(100 * share, 2 * (1 - share) / (2 - share), "k--", lw=1, label="if all of these are missed")
        axes.set(xlabel=f"disc pixels of contrast below {FAINT}, %", ylabel="Dice", title=f"{count} pictures")
        axes.legend(frameon=False, loc="lower left")
        axes.grid(alpha=0.3)


def contrast_rows(network: nn.Module) -> list[Row]:
    """By the grey levels between disc and ground: share of all disc pixels, part found, share of the missed.

    `bound` is the Dice of a prediction that is perfect but for the discs up to this contrast, which it lacks.
    """
    images, masks = scored_pictures(SCORED, SCORED_SEED)
    found, truth, contrast = predict(network, images) >= 0.5, masks[:, 1] > 0, contrasts(SCORED, SCORED_SEED)
    rows = []
    for low, high in pairwise(CONTRASTS):
        own = truth & (contrast >= low) & (contrast < high)
        row = {"contrast": f"{low} to {high - 1}", "share": own.sum() / truth.sum(), "found": found[own].float().mean()}
        row["of_the_missed"] = (own & ~found).sum() / (truth & ~found).sum()
        row["bound"] = dice_coefficient((truth & (contrast >= high)).float(), masks[:, 1]).mean()
        rows.append({name: value if name == "contrast" else round(value.item(), 6) for name, value in row.items()})
    return rows


def plot_losses(path: Path, rows: Rows) -> None:
    """The loss of every step (question 2), by network: with BatchNorm and without, and at batches of 32."""
    panels = {"with BatchNorm": ("True", "4"), "without": ("False", "4"), "with it, batches of 32": ("True", "32")}
    with drawing(path, 14, 3.8) as figure:
        for axes, (title, (norm, batch_size)) in zip(figure.subplots(1, 3, sharey=True), panels.items(), strict=True):
            for colour, network in enumerate(NETWORKS):
                for width, style in (("16", "-"), ("64", ":")):
                    wanted = {"noise_units": "False", "network": network, "norm": norm, "base_channels": width}
                    own = matching(rows, {**wanted, "batch_size": batch_size})
                    if own:
                        losses, label = [float(row["loss"]) for row in own], f"{network}, width {width}"
                        axes.plot([int(row["step"]) for row in own], losses, f"C{colour}{style}", label=label, lw=1)
            axes.set(title=title, xlabel="step", ylim=(0, 0.8))
            axes.grid(alpha=0.3)
            if axes.lines:
                axes.legend(frameon=False)
        figure.axes[0].set_ylabel("loss")


def plot_noise(path: Path, rows: list[Row]) -> None:
    """Dice against the noise of the pictures, a curve for each recipe; below it, one of them in each noise."""
    sigmas = [row["sigma"] for row in rows]
    with drawing(path, 9, 5) as figure:
        upper, lower = figure.subfigures(2, 1, height_ratios=(3, 1))
        axes = upper.subplots()
        for recipe in list(rows[0])[1:]:
            label = "our way" if recipe == "ours" else "the tutorial's way"
            axes.plot(sigmas, [row[recipe] for row in rows], marker="o", label=label)
        axes.axvline(20, color="0.7", linestyle="dashed", label="the noise of their training")
        axes.set(xlabel="deviation of the noise, grey levels of 255", ylabel="Dice")
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
        for axes, sigma in zip(lower.subplots(1, len(sigmas)), sigmas, strict=True):
            axes.imshow(Shapes(sigma=sigma, seed=SCORED_SEED)(1)[0][0], cmap="gray")
            axes.set_title(sigma, fontsize=9)
            axes.axis("off")


def metrics(path: Path) -> None:
    """Question 3's four values; section 2.4.3 on a picture that is nine tenths ground; the networks' sizes."""
    matrices = {"eye": torch.eye(3), "ones": torch.ones(3, 3), "zeros": torch.zeros(3, 3)}
    result = {}
    for a, b in (("eye", "eye"), ("eye", "ones"), ("zeros", "ones"), ("zeros", "zeros")):
        pair = matrices[a], matrices[b]
        row = result[f"{a}_{b}"] = {"jaccard": jaccard(*pair).item(), "dice": dice_coefficient(*pair).item()}
        print(f"{a} and {b}: Jaccard {row['jaccard']:.4e}, Dice {row['dice']:.4e}")
    truth = torch.zeros(100, 100)
    truth[:20, :50] = 1
    half = truth.clone()
    half[:, 25:] = 0
    for name, found in (("nothing", torch.zeros(100, 100)), ("half", half), ("all", truth)):
        row = {"dice": dice_coefficient(found, truth).item(), "jaccard": jaccard(found, truth).item()}
        result[name] = {"accuracy": (found == truth).float().mean().item(), **row}
        print(f"found {name}: " + ", ".join(f"{score} {value:.4f}" for score, value in result[name].items()))
    for name in NETWORKS:
        with torch.device("meta"):  # shapes only
            sizes = {part: weights.numel() for part, weights in make_network(name, True, 64).named_parameters()}
        decoder = sum(size for part, size in sizes.items() if part.startswith("up_"))
        result[name] = {"parameters": sum(sizes.values()), "decoder": decoder}
        print(f"{name}, width 64: {result[name]['parameters']:,} parameters, {decoder:,} of them in its decoder")
    write_json(path, result)
