"""Digits on paper, photographed: MNIST's, enlarged, with a pen, in the light of a window, on squares, near an edge."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

KINDS = ("light from a window", "a shadow", "ruled paper", "squared paper", "the table's edge")
SIZE = (800, 600)


def lines(draw: ImageDraw.ImageDraw, gap: float, tilt: float, upright: bool, shade: tuple[int, int, int]) -> None:
    width, height = SIZE
    for place in np.arange(-height, 2 * width, gap):
        ends = [(-9, place), (width + 9, place + tilt * width)]
        draw.line([end[::-1] for end in ends] if upright else ends, fill=shade, width=2)


def photograph(digit: torch.Tensor, kind: str, random: np.random.Generator) -> Image.Image:
    """A photograph of the digit [28, 28], in [0, 1], written on paper; what is random is its own."""
    width, height = SIZE
    paper = Image.new("RGB", SIZE, tuple(random.integers(225, 250, 3)))
    tilt = random.uniform(-0.03, 0.03)
    shade = tuple(int(value) for value in random.integers((150, 170, 190), (180, 200, 225)))
    gap = random.uniform(45, 70)
    if kind in ("ruled paper", "squared paper"):
        lines(ImageDraw.Draw(paper), gap, tilt, False, shade)
    if kind == "squared paper":
        lines(ImageDraw.Draw(paper), gap, -tilt, True, shade)

    side = int(random.uniform(200, 340))
    stroke = Image.fromarray((digit.numpy() * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    stroke = stroke.point(lambda value: 255 if value > 120 else 0)  # a pen's strokes have edges
    for _ in range(int(random.integers(0, side // 90))):  # and some pens are thin
        stroke = stroke.filter(ImageFilter.MinFilter(3))
    pen = tuple(int(value) for value in random.integers((10, 10, 30), (60, 60, 140)))
    place = (int((width - side) / 2 + random.uniform(-60, 60)), int((height - side) / 2 + random.uniform(-40, 40)))
    paper.paste(pen, place, stroke)

    if kind == "the table's edge":
        table = Image.new("RGB", SIZE, tuple(int(value) for value in random.integers((70, 45, 30), (130, 95, 70))))
        mask = Image.new("L", SIZE, 0)
        a, b = random.uniform(0.04, 0.16, 2) * width
        ImageDraw.Draw(mask).polygon([(a, -1), (width, b / 2), (width, height), (b, height)], fill=255)
        paper = Image.composite(paper, table, mask)
    light = np.ones((height, width), dtype=np.float32)
    rows, columns = np.indices((height, width))
    if kind == "light from a window":
        angle = random.uniform(0, 2 * np.pi)
        along = np.cos(angle) * (columns / width - 0.5) + np.sin(angle) * (rows / height - 0.5)
        light *= 0.7 + 0.5 * along
    if kind == "a shadow":
        edge = random.uniform(0.25, 0.75) * width + random.uniform(-0.5, 0.5) * (rows - height / 2)
        light *= 1 - random.uniform(0.3, 0.5) / (1 + np.exp((columns - edge) / random.uniform(4, 25)))
    seen = np.asarray(paper.filter(ImageFilter.GaussianBlur(1)), dtype=np.float32) * light[..., None]
    return Image.fromarray((seen + random.normal(0, 4, seen.shape)).clip(0, 255).astype(np.uint8))


def photographs(images: torch.Tensor, labels: torch.Tensor, seed: int):
    """Ten photographs of each kind, one of each digit: (kind, label, photograph)."""
    random = np.random.default_rng(seed)
    for kind in KINDS:
        for label in range(10):
            digit = images[random.choice(np.flatnonzero(labels == label)), 0]
            yield kind, label, photograph(digit, kind, random)
