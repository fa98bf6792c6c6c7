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
from labs.app.paper import centred_digit, digit_ink, thickened
from labs.cats_dogs.pictures import open_picture
from labs.cats_dogs.scores import probabilities
from labs.handwriting import Limits, named, shares_of
from labs.weights import load
from pictures import open_photograph
from report.draw_car import draw_car
from training import lacks_memory

DRAWN_CARS = (0, 4, 8)  # seeds of report/draw_car.py; 0 is that of car.jpg
NAMES = {  # of the networks that read digits, in each language
    "lenet": ("LeNet-5, today’s", "今天的 LeNet-5"),
    "lenet_original": ("LeNet-5 of 1998", "1998 年的 LeNet-5"),
}
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


def digit_of_pad(drawing: str | None) -> Tensor | None:
    """What the pad sends, 28x28 bytes in base64 or nothing at all, as [1, 1, 28, 28] in [0, 1]; or ValueError."""
    if not drawing:
        return None
    pixels = np.frombuffer(base64.b64decode(drawing), dtype=np.uint8)
    return torch.from_numpy(pixels.reshape(1, 1, 28, 28) / np.float32(255))


def digit_of_photo(path: Path) -> Tensor:
    """The digit in a photograph, as MNIST has it, [1, 1, 28, 28] in [0, 1]; ValueError where there is none."""
    ink = digit_ink(open_photograph(path))
    if ink is None:
        raise ValueError(
            f"no digit is found in {path}: it must stand alone near the middle, in ink darker than all lines"
        )
    return centred_digit(thickened(ink))


def in_both(english: str, chinese: str) -> str:
    """HTML of a text, of which the page shows its own language."""
    return f'<span lang="en">{english}</span><span lang="zh-CN">{chinese}</span>'


def in_words(digits: list[int]) -> str:
    """HTML of what `named` says."""
    if not digits:
        return in_both("none of these, if I may say so", "恕我直言，一个都不像")
    if len(digits) == 1:
        return f"<b>{digits[0]}</b>"
    one, other = digits
    return in_both(f"perhaps {one}, perhaps {other}", f"也许是 {one}，也许是 {other}")


def image_tag(pixels: Tensor, name: str) -> str:
    """A picture [H, W] in [0, 1] as an <img>."""
    buffer = io.BytesIO()
    Image.fromarray((pixels * 255).round().byte().numpy()).save(buffer, "PNG")
    return f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def bar(share: float, named: bool) -> str:
    best = ' class="best"' if named else ""
    return f'<td{best}><div><i style="width: {share:.1%}"></i>{share:.1%}</div></td>'


@torch.inference_mode()
def read_digit(networks: dict[str, nn.Module], limits: dict[str, Limits], digit: Tensor | None) -> tuple[str, str]:
    """HTML of what the networks see, [1, 1, 28, 28], and say, and of the first one's maps of C1; empty for no digit.

    `networks` and `limits` have the same names, those of labs/weights.py.
    """
    if digit is None:
        return "", ""
    heads, rows = "", [f'<th scope="row">{label}</th>' for label in (*range(10), in_both("none", "都不是"))]
    for name, network in networks.items():
        shares = shares_of(network(digit), limits[name])[0]
        digits = named(shares, limits[name])
        heads += f'<th scope="col">{in_both(*NAMES[name])}<p>{in_words(digits)}</p></th>'
        for label, share in enumerate(shares.tolist()):
            rows[label] += bar(share, label in digits or label == 10 and not digits)
        if len(shares) == 10:
            rows[10] += "<td>–</td>"
    first = f'<th scope="col">{in_both("Digit", "数字")}</th>'
    table = f"<table><tr>{first}{heads}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
    modern = next(iter(networks.values()))
    maps = F.relu(modern.C1((digit - 0.1307) / 0.3081))[0]  # [6, 28, 28], as in its forward
    tags = "".join(image_tag(one / maps.max(), f"C1, {number}") for number, one in enumerate(maps))
    caption = in_both("What both see, 28×28 pixels", "两个网络看到的 28×28 像素")
    seen = f"<figure>{image_tag(digit[0, 0], '28×28')}<figcaption>{caption}</figcaption></figure>"
    return f'<div class="reading">{seen}{table}</div>', f'<div class="maps">{tags}</div>'


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
