"""Cars cut out along their masks and put before other backgrounds.

cut_out(picture, mask, "sky and meadow")     bytes [H, W, 3] again
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F


def blotches(height: int, width: int) -> np.ndarray:
    """Spots of all sizes in all colours, as leaves and their shadows have: bytes `[height, width, 3]`."""
    generator, total = torch.Generator().manual_seed(0), torch.zeros(1, 3, height, width)
    for cells in (4, 16, 64, 256):
        spots = torch.rand(1, 3, cells, cells, generator=generator) - 0.5
        total += F.interpolate(spots, (height, width), mode="bilinear", align_corners=False)
    return ((total / total.std() / 4 + 0.5).clamp(0, 1) * 255).byte()[0].permute(1, 2, 0).numpy()


def meadow(height: int, width: int) -> np.ndarray:
    """A blue sky over a green ground: bytes `[height, width, 3]`."""
    rows = np.arange(height)[:, None, None] / height
    return np.broadcast_to(np.where(rows < 0.5, (120, 170, 230), (70, 120, 50)), (height, width, 3)).astype(np.uint8)


BACKGROUNDS: dict[str, Callable[[int, int], Any]] = {
    "its own": lambda height, width: 0,
    "grey": lambda height, width: 128,
    "black": lambda height, width: 0,
    "sky and meadow": meadow,
    "blotches": blotches,
}


def cut_out(picture: np.ndarray, mask: np.ndarray, background: str) -> np.ndarray:
    """The car of `picture` `[H, W, 3]` (bytes), where `mask` `[H, W]` is 1, before one of BACKGROUNDS."""
    if background == "its own":
        return picture
    behind = np.broadcast_to(BACKGROUNDS[background](*mask.shape), picture.shape)
    return np.where(mask[..., None] > 0, picture, behind).astype(np.uint8)
