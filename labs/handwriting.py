"""What both pages of handwritten digits share: ten digits to begin with, and what a network's scores are in words.

    python -m labs.handwriting

prints

    labs/digits.png: 0 1 2 3 4 5 6 7 8 9

The ten are of MNIST's test digits, CC BY-SA 3.0. handwriting.js, beside this file, is the pad of both pages.
"""

import base64
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from labs.commands import lab_parser
from labs.weights import LABS
from report.tables import RESULTS, read_rows
from train_lenet import load_mnist
from training import ROOT, command, told, write_whole

SCRIPT, EXAMPLES = LABS / "handwriting.js", LABS / "digits.png"
THRESHOLDS = RESULTS / "experiments" / "unknown_thresholds.csv"
# Of each class a test digit. To today's network the 4 is a 9 and the 6 a 0, to that of 1998 the 5 is a 3, to both the 8
# is a 3.
CHOSEN = (3, 2, 1, 30, 2130, 2035, 3422, 0, 1878, 7)


class Limits(NamedTuple):
    """From which probability on a network is sure, and from which distance on 1998's takes nothing for a digit."""

    probability: float
    distance: float | None


def read_limits() -> dict[str, Limits]:
    """Of both networks, by their names in labs/weights.py, as the report's experiment `unknown` found them."""
    found = {(row["network"], row["score"]): float(row["threshold"]) for row in read_rows(THRESHOLDS, needed=True)}
    return {
        "lenet": Limits(round(found["lenet", "probability"], 4), None),
        "lenet_original": Limits(0.5, -found["lenet_original", "score"]),
    }


def shares_of(scores: Tensor, limits: Limits) -> Tensor:
    """Of scores `[B, 10]`, `[B, 10]`; where there is a distance, `[B, 11]`, the last one of "none of these".

    The eleventh is the floor of 1998's criterion (`original_loss`), exp(-j), with the distance for j.
    """
    if limits.distance is not None:
        scores = torch.cat([scores, scores.new_full((len(scores), 1), -limits.distance)], dim=1)
    return scores.softmax(dim=1)


def named(shares: Tensor, limits: Limits) -> list[int]:
    """What probabilities `[10]` or `[11]` say: a digit, the two that together are sure, or none."""
    first, second = shares[:10].topk(2).indices.tolist()
    if shares[first] >= limits.probability:
        return [first]
    return [first, second] if shares[first] + shares[second] >= limits.probability else []


def examples() -> str:
    """The ten digits, 28x28 bytes each, one after another in base64, as handwriting.js takes them."""
    strip = np.asarray(Image.open(EXAMPLES))
    return base64.b64encode(strip.reshape(28, 10, 28).swapaxes(0, 1).tobytes()).decode()


@command
def main() -> None:
    lab_parser("handwriting", __doc__).parse_args()
    with told():
        images, labels = (part[list(CHOSEN)] for part in load_mnist(ROOT / "data", train=False))
        strip = (images[:, 0] * 255).round().byte().transpose(0, 1).reshape(28, -1)
        with write_whole(EXAMPLES) as part:
            Image.fromarray(strip.numpy()).save(part)
        print(f"{EXAMPLES.relative_to(ROOT)}: {' '.join(map(str, labels.tolist()))}")


if __name__ == "__main__":
    main()
