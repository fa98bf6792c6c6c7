"""The U-Net's experiments; `python -m report.experiments NAME` runs them (see there)."""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.functional import resize, to_tensor

from carvana import find_pairs, open_photograph, read_mask
from infer_unet import network_size
from train_unet import SIZE, dice_coefficient
from unet import UNet, load_unet

ROOT = Path(__file__).resolve().parent.parent
CAR_MASK = ROOT / "report" / "results" / "unet" / "car_mask.png"
Row = dict[str, Any]


@torch.inference_mode()
def mask_at(model: UNet, image: Image.Image, place: str) -> np.ndarray:
    """The mask [H, W] of `image` with the network's scores laid over the photograph in one of three ways.

    "padded": the input is padded to multiples of 16, so there is a score for every pixel (as infer_unet.py does it).
    "centred": not padded; the scores lie where the last skip was cropped from, their edges repeated outwards.
    "stretched": not padded; the scores are enlarged to the whole photograph.
    """
    height, width = network_size(*image.size, SIZE)
    x = to_tensor(resize(image, [height, width]))[None]  # [1, 3, h, w]
    if place == "padded":
        x = F.pad(x, (0, -width % 16, 0, -height % 16), mode="replicate")
    scores = model(x.to(memory_format=torch.channels_last))
    if place == "padded":
        scores = scores[:, :, :height, :width]
    if place == "centred":
        top, left = (height - scores.shape[2]) // 2, (width - scores.shape[3]) // 2
        around = (left, width - left - scores.shape[3], top, height - top - scores.shape[2])
        scores = F.pad(scores, around, mode="replicate")
    scores = F.interpolate(scores, size=(image.height, image.width), mode="bilinear", align_corners=False)
    return (scores[0, 0] >= 0).numpy()


def outline_shift(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """How many rows lower the car's roof and its wheels are in `found` than in `truth`, both [H, W] masks.

    The median over the columns in which both show car.
    """
    both = found.any(axis=0) & truth.any(axis=0)
    roof = found[:, both].argmax(axis=0) - truth[:, both].argmax(axis=0)
    wheels = truth[::-1, both].argmax(axis=0) - found[::-1, both].argmax(axis=0)
    return {"roof": float(np.median(roof)), "wheels": float(np.median(wheels))}


def place(args: argparse.Namespace, rows: list[dict[str, str]]) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """Where do the scores of a network that crops belong? With model.pth, on `car.jpg` and the photographs in `--data`.

    The shifts of roof and wheels are in rows of the network's input.
    """
    model = load_unet(ROOT / "model.pth", torch.device("cpu"))

    def score(photo: Path, mask: Path, how: str) -> Row:
        truth = read_mask(mask)
        found = mask_at(model, open_photograph(photo), how)
        dice = dice_coefficient(torch.from_numpy(found).float(), torch.from_numpy(truth).float()).item()
        rows = SIZE / min(truth.shape)
        return {"dice": round(dice, 6), **{name: f"{x * rows:.1f}" for name, x in outline_shift(found, truth).items()}}

    for name in ("car.jpg", "photographs"):
        pairs = [(ROOT / "car.jpg", CAR_MASK)] if name == "car.jpg" else find_pairs(args.data)
        for how in ("padded", "centred", "stretched"):
            for photo, mask in pairs:
                yield {"pictures": name, "place": how, "photograph": photo.name}, partial(score, photo, mask, how)
