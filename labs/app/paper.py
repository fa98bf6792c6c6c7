"""A digit in a photograph of paper, as MNIST has it: what differs from the paper around it, nearest to the middle."""

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from pictures import blocks

SIDE = 280  # pixels: the longer side of the photograph that is looked at
LEAST_CONTRAST = 0.1  # between ink and paper: dirt and JPEG's noise have less


def ink_on(photo: Image.Image) -> np.ndarray:
    """How much each pixel of `photo` (RGB) differs from the paper around it: [H, W], 0 to 1.

    The paper is the median of half the picture's width around; so neither the light from one side nor a shadow is ink.
    Ink may be darker or lighter than paper, of any colour; divided by the brighter of both, it is as much in shadow.
    """
    quarter = photo.resize([max(1, side // 4) for side in photo.size], Image.Resampling.BOX)
    around = SIDE // 4 // 2 + 1 - SIDE // 4 // 2 % 2
    paper = quarter.filter(ImageFilter.MedianFilter(around)).resize(photo.size, Image.Resampling.BILINEAR)
    seen, paper = np.asarray(photo, dtype=np.float32), np.asarray(paper, dtype=np.float32)
    return (np.abs(seen - paper) / np.maximum(np.maximum(seen, paper), 64)).max(axis=2)


def regions(mask: np.ndarray) -> np.ndarray:
    """Which connected region of `mask` [H, W] each of its pixels belongs to, by a number; -1 outside."""
    found = np.where(mask, np.arange(mask.size).reshape(mask.shape), -1)
    while True:
        # The largest number around, and then that of the pixel that had it: a long stroke takes few rounds.
        grown = np.where(mask, blocks(np.pad(found, 1, constant_values=-1), np.maximum), -1)
        grown = np.where(mask, grown.flat[grown], -1)
        if (grown == found).all():
            return found
        found = grown


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels in `mask`."""
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def digit_ink(photo: Image.Image) -> np.ndarray | None:
    """The ink of the digit in a photograph (RGB), [H, W], 0 to 1 and 0 around it; None where there is none.

    What touches the picture's edge, a line or the table's, is no digit. Of the rest it is the region nearest to the
    middle, with what lies close to it.
    """
    photo = photo.copy()
    photo.thumbnail((SIDE, SIDE))
    ink = np.pad(ink_on(photo), 1)
    height, width = ink.shape
    middle = ink[height // 5 : -height // 5, width // 5 : -width // 5]
    level = np.quantile(middle, 0.995) / 2 if middle.size else 0
    if level < LEAST_CONTRAST / 2:
        return None
    found = regions(ink > level)
    at_edge = np.concatenate([found[1], found[-2], found[:, 1], found[:, -2]])
    numbers, areas = np.unique(found[~np.isin(found, at_edge)], return_counts=True)
    numbers = numbers[(areas >= ink.size / 2000) & (numbers >= 0)]
    if not numbers.size:
        return None
    rows, columns = np.nonzero(np.isin(found, numbers))
    nearest = np.hypot(rows - height / 2, columns - width / 2).argmin()
    left, top, right, bottom = box_of(found == found[rows[nearest], columns[nearest]])
    near = max(right - left, bottom - top) // 5
    close = found[max(0, top - near) : bottom + near, max(0, left - near) : right + near]
    digit = np.isin(found, np.intersect1d(close, numbers))
    return np.where(digit, np.minimum(ink / (2 * level), 1), 0)


def thickened(ink: np.ndarray) -> np.ndarray:
    """A thin pen's strokes made as thick as MNIST's, an eighth of the digit's box; thicker ones stay."""
    mask = ink > 0.5
    left, top, right, bottom = box_of(mask)
    inner = blocks(np.pad(mask, 1).astype(np.uint8), np.minimum)
    width = 2 * mask.sum() / max(1, mask.sum() - inner.sum())  # area by half the outline
    missing = round((max(right - left, bottom - top) / 8 - width) / 2)
    picture = Image.fromarray((np.pad(ink, max(0, missing)) * 255).astype(np.uint8))
    for _ in range(missing):
        picture = picture.filter(ImageFilter.MaxFilter(3))
    return np.asarray(picture, dtype=np.float32) / 255


def centred_digit(ink: np.ndarray) -> Tensor:
    """A drawing [H, W] with some ink, 0 to 1, as MNIST's digits are: [1, 1, 28, 28] in [0, 1].

    Y. LeCun and others, 1998, III.A: the longer side of its box 20 pixels, its centre of mass in pixel (14, 14).
    """
    left, top, right, bottom = box_of(ink > 0.25)  # what is fainter is paper
    drawn = np.pad(ink[top:bottom, left:right], (bottom - top) + (right - left))  # the middle's neighbourhood is inside
    rows, columns = np.indices(drawn.shape) + 0.5
    y, x = ((places * drawn).sum() / drawn.sum() for places in (rows, columns))
    pixel = max(right - left, bottom - top) / 20
    box = (x - 14.5 * pixel, y - 14.5 * pixel, x + 13.5 * pixel, y + 13.5 * pixel)
    picture = Image.fromarray(drawn.astype(np.float32)).resize((28, 28), Image.Resampling.BOX, box)
    return torch.from_numpy(np.array(picture)).clamp(0, 1)[None, None]
