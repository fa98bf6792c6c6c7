"""Strips of MNIST digits, their pieces, and the network that reads one piece (the strips tutorial, 1.3, 1.4 and 2).

strips, labels = make_strips(load_mnist(Path("data"), train=True), count=3, seed=0)   # [3, 28, 140] and [3, 5]
piece, label = StripPieces(strips, labels)[7]                                         # the second strip's third
reading = read_pieces(CNN(), cut(strips) / 255)                                       # [15]
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from pictures import open_photograph

PLACES, SIDE, BLANK = 5, 28, 10
LEAST_CONTRAST = 25  # grey levels of 255 between ink and paper: a blank strip's dirt and JPEG noise have fewer
LEAST_PAPER = 0.55  # of a place; MNIST's fattest digit, a training digit, leaves 0.556

Digits = tuple[Tensor, Tensor]  # images [N, 1, 28, 28] in [0, 1] and labels [N], 0 to 9


def make_strips(digits: Digits, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Strips of five places, `[B, 28, 140]` bytes with 0 the background, and their labels `[B, 5]`.

    A place is blank (label 10) with a chance of 1 in 11, else any one of `digits`.
    """
    images, labels = digits
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(images), (count, PLACES), generator=generator)
    blank = torch.rand(count, PLACES, generator=generator) < 1 / 11
    places = (images[:, 0] * 255).round().byte()[chosen]  # [B, 5, 28, 28]
    places[blank] = 0
    return places.transpose(1, 2).reshape(count, SIDE, PLACES * SIDE), labels[chosen].masked_fill(blank, BLANK)


def cut(strips: Tensor) -> Tensor:
    """All pieces `[B * places, 1, 28, 28]` of strips `[B, 28, places * 28]`, those of one strip after another."""
    return strips.unflatten(2, (-1, SIDE)).transpose(1, 2).reshape(-1, 1, SIDE, SIDE)


def one_hot(label: Tensor | int) -> Tensor:
    """The label as section 1.4.2's `Lambda` makes it of eleven classes. Only the lesson needs it: see F.nll_loss."""
    return torch.zeros(11).scatter_(dim=0, index=torch.as_tensor(label), value=1)


class StripPieces(Dataset):
    """The pieces of strips `[B, 28, places * 28]` (bytes), one by one: section 1.3.2's `CustomedDataSet`.

    Gives (piece `[1, 28, 28]` in [0, 1], label), or the piece alone where `labels` `[B, places]` are not known.
    """

    def __init__(
        self, strips: Tensor, labels: Tensor | None = None, target_transform: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.strips, self.labels, self.target_transform = strips, labels, target_transform
        self.places = strips.shape[2] // SIDE

    def __len__(self) -> int:
        return len(self.strips) * self.places

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | Tensor:
        if not 0 <= index < len(self):
            raise IndexError(index)  # else iterating over the pieces would never end
        strip, place = divmod(index, self.places)
        piece = self.strips[strip, None, :, place * SIDE : (place + 1) * SIDE] / 255
        if self.labels is None:
            return piece
        label = self.labels[strip, place]
        return piece, label if self.target_transform is None else self.target_transform(label)


class CNN(nn.Module):
    """Section 2's network: pieces `[B, 1, 28, 28]` in [0, 1] -> logarithms of the 11 probabilities, `[B, 11]`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 3)
        self.fc1 = nn.Linear(20 * 10 * 10, 500)
        self.fc2 = nn.Linear(500, 11)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2, 2)  # [B, 10, 24, 24], then [B, 10, 12, 12]
        x = F.relu(self.conv2(x)).flatten(1)  # [B, 20, 10, 10], then [B, 2000]
        return F.log_softmax(self.fc2(F.relu(self.fc1(x))), dim=1)  # without `dim`, as in the tutorial, PyTorch warns


@torch.inference_mode()
def read_pieces(network: nn.Module, pieces: Tensor) -> Tensor:
    """What the network reads in pieces `[B, 1, 28, 28]` in [0, 1]: `[B]`, 0 to 9, or 10 for a blank one."""
    network.eval()
    device = next(network.parameters()).device
    return torch.cat([network(part.to(device)).argmax(dim=1).cpu() for part in pieces.split(1000)])


def find_ink(picture: Image.Image) -> np.ndarray:
    """How much each pixel of `picture` (RGB) differs from the paper, the commonest shade: [H, W], at most 255.

    Ink may have any colour. Where nothing has as much contrast as ink has, all is 0.
    """
    colours = np.asarray(picture, dtype=float)
    ink = np.abs(colours - np.median(colours, axis=(0, 1))).max(axis=2)
    if ink.max() < LEAST_CONTRAST:
        ink[:] = 0
    return ink * 255 / max(ink.max(), 1)


def open_strip(path: Path) -> Tensor:
    """A picture of a strip as MNIST would have it, `[1, 28, places * 28]` bytes: bright ink on 0.

    As many places as fit side by side into the picture as squares. Raises ValueError, worded for the user.
    """
    picture = open_photograph(path)
    places = round(picture.width / picture.height)
    if not 1 <= places <= PLACES:
        size = f"{picture.width}x{picture.height}"
        raise ValueError(f"{path} has {size} pixels: a strip is one to {PLACES} square places side by side")
    return torch.from_numpy(find_ink(picture.resize((places * SIDE, SIDE)))).round().byte()[None]


def centred(pieces: Tensor) -> Tensor:
    """Pieces `[B, 1, 28, 28]` with the centre of their ink moved to the middle, as MNIST's digits have it.

    By no more than a quarter of a place, and not where there is little: that is a bit of the neighbour's digit.
    """
    ink, middle, most = pieces.sum(dim=(1, 2, 3)), SIDE // 2, SIDE // 4
    at = torch.arange(SIDE, dtype=torch.float32)
    weights = ink.clamp(min=1e-6)
    down, right = (middle - pieces.sum(dim=dims) @ at / weights for dims in ((1, 3), (1, 2)))
    enough = ink > ink.max() / 8
    moves = torch.stack([down, right], dim=1).round().clamp(-most, most).long() * enough[:, None]
    padded = F.pad(pieces, (most,) * 4)
    moved = [
        piece[:, most - down : most - down + SIDE, most - right : most - right + SIDE]
        for piece, (down, right) in zip(padded, moves.tolist(), strict=True)
    ]
    return torch.stack(moved)


def read_strip(network: nn.Module, path: Path) -> str:
    """The digits in a picture of a strip, `_` for a blank place; raises ValueError, worded for the user.

    Warns of a picture in which there can be no digits.
    """
    pieces = torch.stack(list(StripPieces(open_strip(path))))
    paper = (pieces < 0.1).float().mean(dim=(1, 2, 3)).min()
    if paper < LEAST_PAPER:
        said = f"only {paper:.0%} of a place in {path} is paper, and with any digit more than half is"
        print(f"warning: {said}: is it a strip of digits on even paper?", file=sys.stderr)
    return "".join("0123456789_"[label] for label in read_pieces(network, centred(pieces)))
