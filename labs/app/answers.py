"""What the page answers: pictures in, pictures, numbers and HTML out. No part of the page itself."""

import base64
import html
import io
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from infer_unet import doubt, mask_of, overlay, predict_scores
from labs.app.draw_pets import draw_cat, draw_dog
from labs.cats_dogs.pictures import open_picture
from labs.cats_dogs.scores import probabilities
from labs.digit_strips.strips import find_ink
from labs.weights import load
from pictures import open_photograph
from report.draw_car import draw_car
from training import lacks_memory

DRAWN_CARS = (0, 4, 8)  # seeds of report/draw_car.py; 0 is that of car.jpg
SHOWN = 1200  # pixels: the longer side of a photograph in the page


def load_networks(model: Path, cats_dogs: Path | None, device: torch.device) -> dict[str, nn.Module]:
    """The page's networks; `model` has the U-Net's weights, `cats_dogs` those for the pets, if not the repository's.

    The small ones read on the CPU, while somebody draws.
    """
    networks = {"lenet": load("lenet"), "lenet_original": load("lenet_original")}
    return networks | {"unet": load("unet", model, device), "cats_dogs": load("cats_dogs", cats_dogs, device)}


def example_cars(folder: str) -> list[str]:
    """The repository's car and others drawn like it, as files in `folder`."""
    files = []
    for seed in DRAWN_CARS:
        files.append(f"{folder}/car{seed}.jpg")
        draw_car(seed, 858, 572)[0].save(files[-1], quality=92)
    return files


def example_pets(folder: str) -> list[str]:
    """A drawn cat and a drawn dog, as files in `folder`."""
    files = {f"{folder}/{name}.png": draw for name, draw in {"cat": draw_cat, "dog": draw_dog}.items()}
    for file, draw in files.items():
        draw().save(file)
    return list(files)


def shrunk(image: Image.Image, longest: int) -> Image.Image:
    image = image.copy()
    image.thumbnail((longest, longest))
    return image


# A digit


def ink_of_pad(drawing: str | None) -> np.ndarray | None:
    """How much ink each pixel of the pad has, [H, W], 0 to 255; the page sends a PNG in base64, or nothing at all."""
    if not drawing:
        return None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(drawing)), formats=["PNG"]).convert("L"))


def ink_of_photo(path: Path) -> np.ndarray:
    return find_ink(shrunk(open_photograph(path), 280))


def centred_digit(ink: np.ndarray) -> Tensor | None:
    """A drawing [H, W], 0 to 255, as MNIST's digits are: [1, 1, 28, 28] in [0, 1]; None where there is no ink.

    Y. LeCun and others, 1998, III.A: scaled, with its proportions, into 20x20 pixels, its centre of mass in the middle.
    """
    drawn = Image.fromarray(ink.round().astype(np.uint8))
    box = drawn.point(lambda value: 255 if value > 64 else 0).getbbox()  # what is fainter is paper
    if box is None:
        return None
    drawn = drawn.crop(box)
    width, height = (max(1, round(20 * side / max(drawn.size))) for side in drawn.size)
    small = torch.from_numpy(np.asarray(drawn.resize((width, height), Image.Resampling.BOX)) / np.float32(255))
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    top, left = (14 - round(((places * small).sum() / small.sum()).item()) for places in (rows, columns))
    # A box of 20 whose centre of mass lies at its edge reaches beyond the picture, and is cut.
    return F.pad(small, (left, 28 - left - width, top, 28 - top - height))[None, None]


def image_tag(pixels: Tensor, name: str) -> str:
    """A picture [H, W] in [0, 1] as an <img>."""
    buffer = io.BytesIO()
    Image.fromarray((pixels * 255).round().byte().numpy()).save(buffer, "PNG")
    return f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


@torch.inference_mode()
def read_digit(networks: dict[str, nn.Module], ink: np.ndarray | None) -> tuple[str, str]:
    """HTML of what the networks see and how likely each digit is to them, and of the first one's maps of C1."""
    digit = None if ink is None else centred_digit(ink)
    seen = torch.zeros(1, 1, 28, 28) if digit is None else digit
    rows = [f"<th>{label}</th>" for label in range(10)]
    for network in networks.values():
        shares = network(seen)[0].softmax(dim=0) if digit is not None else torch.zeros(10)
        for label, share in enumerate(shares.tolist()):
            best = ' class="best"' if share and share == shares.max() else ""
            rows[label] += f'<td{best}><div><i style="width: {share:.1%}"></i></div>{share:.1%}</td>'
    heading = "".join(f"<th>{name}</th>" for name in ("", *networks))
    table = f"<table><tr>{heading}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
    first = next(iter(networks.values()))
    maps = F.relu(first.C1((seen - 0.1307) / 0.3081))[0]  # [6, 28, 28], as in its forward
    tags = "".join(image_tag(one / maps.max(), f"C1, {number}") for number, one in enumerate(maps))
    seen_tag = image_tag(seen[0, 0], "28x28")
    return f'<div class="reading">{seen_tag}{table}</div>', f'<div class="maps">{tags}</div>'


# A car


@dataclass
class Found:
    """What a photograph's scores can be thresholded with at once."""

    scores: Tensor  # [1, 1, h, w]
    width: int
    height: int
    shown: Image.Image
    milliseconds: float

    def at(self, threshold: float) -> tuple[Image.Image, float, tuple[str, float] | None]:
        """As the page shows it: the overlay, the car's share of the picture, and what infer_unet.py's `doubt` says."""
        mask = mask_of(self.scores, *self.shown.size, threshold)
        return overlay(self.shown, mask), float(mask.mean()), doubt(mask)


def mask_file(found: Found, threshold: float) -> str:
    """The mask at the photograph's size, a PNG of 0 and 255, as an address that holds it whole: no file lies around."""
    buffer = io.BytesIO()
    mask = mask_of(found.scores, found.width, found.height, threshold)
    Image.fromarray(mask * 255).save(buffer, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def find_car(model: nn.Module, path: Path) -> Found:
    image = open_photograph(path)
    began = time.perf_counter()
    try:
        scores = predict_scores(model, image)
    except (RuntimeError, MemoryError) as error:
        if lacks_memory(error, ""):
            raise ValueError(f"not enough memory for {path}") from None
        raise
    return Found(scores, *image.size, shrunk(image, SHOWN), 1000 * (time.perf_counter() - began))


# A cat or a dog


def tell_apart(network: nn.Module, path: Path) -> tuple[Image.Image, list[float]]:
    """The photograph as the page shows it, and its probabilities to be a cat and a dog."""
    shown = shrunk(open_photograph(path), SHOWN // 2)
    return shown, probabilities(network, open_picture(path, network.size)[None])[0].tolist()


def pet_html(name: str, shown: Image.Image, shares: dict[str, float]) -> str:
    """A photograph with a bar for each of the probabilities `shares`."""
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=85)
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    bars = "".join(
        f"<span{' class=best' if share == max(shares.values()) else ''}>{word} {share:.1%}"
        f'<i style="width: {share:.1%}"></i></span>'
        for word, share in shares.items()
    )
    return f'<figure><img alt="{html.escape(name)}" src="{source}"><figcaption>{bars}</figcaption></figure>'
