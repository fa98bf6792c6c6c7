"""The experiment `unknown`: do the networks know when what they see is no digit?

    python -m report.experiments unknown    trains thirty networks, and shows them what is none

A network may refuse to answer where it is not sure enough. How sure it is can be read off its scores in several ways
(`SCORES`); each has a threshold below which a given share of the digits kept back is refused. What a way is worth is
the share of non-digits that it refuses then: printed letters, digits turned by a quarter, two digits over each other.
Afterwards the thresholds of the shipped networks, for the pages of the labs, are written to unknown_thresholds.csv.
"""

import argparse
import math
from collections.abc import Callable
from functools import cache, partial
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labs.weights import load
from lenet import LeNet5, LeNet5Original, original_loss
from report.best import smooth_cross_entropy
from report.lenet_experiments import mnist, train_network
from report.tables import RESULTS, Rows, Trainings
from train_lenet import random_affine
from training import Row, epoch_generator, write_rows

THRESHOLDS = RESULTS / "experiments" / "unknown_thresholds.csv"
J = 10.0  # of equation 9, as `original_loss` has it
LETTERS = "ACEFHJKLMNPRTUVWXYadefhkmnprtuvwx"  # none that may be read as a digit, such as O, l, S, Z, B, g and q
FONTS = ("DejaVu Sans", "DejaVu Sans Mono", "DejaVu Serif", "STIXGeneral", "cmr10", "cmss10", "cmtt10")
COPIES = 5  # of each letter in each font, every one distorted in its own way
SHOWN = 2000  # turned digits, and pairs
REFUSED = (0.005, 0.01, 0.02, 0.05, 0.1)  # shares of the digits kept back that a threshold refuses


def probability(scores: Tensor) -> Tensor:
    """Of the best answer, among ten."""
    return scores.softmax(dim=1).amax(dim=1)


def energy(scores: Tensor) -> Tensor:
    """W. Liu and others, "Energy-based out-of-distribution detection", NeurIPS 2020, negated."""
    return scores.logsumexp(dim=1)


def margin(scores: Tensor) -> Tensor:
    best, second = scores.topk(2, dim=1).values.unbind(dim=1)
    return best - second


def with_floor(scores: Tensor) -> Tensor:
    """The probability of the best answer where "none of these" is an eleventh one, at the floor of equation 9."""
    return F.pad(scores, (0, 1), value=-J).softmax(dim=1)[:, :10].amax(dim=1)


SCORES: dict[str, Callable[[Tensor], Tensor]] = {  # scores [B, 10] -> [B], the larger the surer
    "probability": probability,
    "score": lambda scores: scores.amax(dim=1),  # of the network of 1998: minus the distance from the nearest code
    "energy": energy,
    "margin": margin,
}
FLOOR = {**SCORES, "probability with the floor": with_floor}  # of the network of 1998


def as_mnist(picture: Tensor) -> Tensor:
    """`picture` [H, W], scaled into 20x20 pixels, its centre of mass in the middle of 28x28, as MNIST's digits are."""
    rows, columns = picture.any(dim=1).nonzero()[:, 0], picture.any(dim=0).nonzero()[:, 0]
    cut = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    size = [max(1, round(20 * side / max(cut.shape))) for side in cut.shape]
    small = F.interpolate(cut[None, None], size, mode="bilinear", antialias=True)[0, 0].clamp(0, 1)
    middle = [(small.sum(dim=1 - axis) * torch.arange(size[axis])).sum() / small.sum() for axis in (0, 1)]
    top, left = (min(28 - side, max(0, round(14 - at.item()))) for side, at in zip(size, middle, strict=True))
    return F.pad(small, (left, 28 - left - size[1], top, 28 - top - size[0]))


@cache
def printed_letters() -> Tensor:
    """Letters in the fonts that matplotlib brings along, distorted as digits are in training: [B, 1, 28, 28]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes a second
    from matplotlib.figure import Figure

    letters = []
    for font, letter in product(FONTS, LETTERS):
        figure = Figure(figsize=(1, 1), dpi=100)
        figure.text(0.5, 0.5, letter, fontsize=40, fontfamily=font, ha="center", va="center")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        letters.append(as_mnist(1 - torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., 0].copy()) / 255))
    return random_affine(torch.stack(letters)[:, None].repeat(COPIES, 1, 1, 1), epoch_generator(0, 0))


@cache
def non_digits() -> dict[str, Tensor]:
    """What is no digit, of each kind: images [B, 1, 28, 28] in [0, 1], from the test digits but for the letters."""
    images, labels = mnist()["test"]
    turned = images[labels != 0][:SHOWN].rot90(dims=(2, 3))  # a 0 stays one
    other = labels[:SHOWN] != labels[SHOWN : 2 * SHOWN]
    overlaid = torch.maximum(images[:SHOWN], images[SHOWN : 2 * SHOWN])[other]
    return {"letters": printed_letters(), "turned": turned, "overlaid": overlaid}


@torch.inference_mode()
def scores_of(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(part) for part in images.split(1000)])


def threshold_of(sure: Tensor, share: float) -> float:
    """Below this, `share` of the values `sure` [B] lie."""
    return sure.sort().values[math.ceil(share * len(sure))].item()


def write_thresholds() -> None:
    """Of the shipped networks; today's has learned the digits kept back too, so the test digits refused are given."""
    rows = []
    for name, ways in (("lenet", SCORES), ("lenet_original", FLOOR)):
        model = load(name)
        scores = {part: scores_of(model, mnist()[part][0]) for part in ("validation", "test")}
        for way, sure in ways.items():
            threshold = threshold_of(sure(scores["validation"]), 0.01)
            test = (sure(scores["test"]) < threshold).float().mean().item()
            rows.append({"network": name, "score": way, "refused": 0.01, "threshold": threshold, "test_refused": test})
    write_rows(THRESHOLDS, rows)


def unknown(args: argparse.Namespace, rows: Rows) -> Trainings:
    """Ten epochs of the recipe, today's network with and without smoothed labels, both with and without distortions.

    Expected, where single trainings were known (refusing 2% of the digits, today's with smoothed labels refused 67% of
    111 letters by its probability, that of 1998 48% by its distance): today's network refuses more of every kind than
    that of 1998. Smoothing makes the probability a good score, which it is not without; unsmoothed, score and energy
    are best. The floor changes little where the threshold is chosen, for it only renames the distance. Distortions help
    with letters, which are distorted themselves, and nowhere else.
    """

    @cache
    def trained(network: str, smoothing: bool, distortions: bool, seed: int) -> nn.Module:
        settings = {"network": network, "smoothing": smoothing, "distortions": distortions, "seed": seed}
        make, loss = (LeNet5, smooth_cross_entropy if smoothing else F.cross_entropy)
        if network == "1998":
            make, loss = LeNet5Original, original_loss
        augment = random_affine if distortions else None
        return train_network("unknown", settings, make, loss, augment=augment)[0].eval()

    def show(settings: Row) -> Row:
        model = trained(*(settings[name] for name in ("network", "smoothing", "distortions", "seed")))
        sure = {**SCORES, **FLOOR}[settings["score"]]
        validation, (images, labels) = scores_of(model, mnist()["validation"][0]), mnist()["test"]
        threshold = threshold_of(sure(validation), settings["refused"])
        scores = scores_of(model, images)
        wrong = scores.argmax(dim=1) != labels
        below = {"digits": sure(scores) < threshold, "mistakes": sure(scores[wrong]) < threshold}
        below |= {kind: sure(scores_of(model, shown)) < threshold for kind, shown in non_digits().items()}
        return {kind: round(refused.float().mean().item(), 6) for kind, refused in below.items()}

    networks = [("today", smoothing, distortions) for smoothing, distortions in product((True, False), repeat=2)]
    networks += [("1998", False, True), ("1998", False, False)]
    for (network, smoothing, distortions), seed in product(networks, range(args.seeds)):
        for score, refused in product(FLOOR if network == "1998" else SCORES, REFUSED):
            settings = {"network": network, "smoothing": smoothing, "distortions": distortions}
            settings |= {"score": score, "refused": refused, "seed": seed}
            yield settings, partial(show, settings)
    write_thresholds()
