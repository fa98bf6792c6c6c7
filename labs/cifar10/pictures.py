"""CIFAR-10's pictures on disk in, tensors out: loaded once, varied in whole batches, and drawn.

pictures, labels, classes = load_cifar(Path("data/cifar10"), "train")    # bytes [50000, 3, 32, 32], [50000], names
"""

import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from labs.commands import drawing
from pictures import in_threads, is_picture, open_photograph
from train_lenet import Batches

SIDE = 32
DOWNLOADED = "cifar-10-batches-py"  # the folder of torchvision's download

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
Pictures = tuple[Tensor, Tensor]  # bytes [N, 3, 32, 32] and labels [N], 0 to 9


def load_cifar(data: Path, part: str, count: int | None = None) -> tuple[Tensor, Tensor, list[str]]:
    """The `part` "train" or "test" of CIFAR-10: bytes `[N, 3, 32, 32]`, labels `[N]`, and the names of the ten classes.

    `data` holds torchvision's download, or a folder of pictures for each class, as in `train/cat/0001.jpg`. The classes
    are mixed, always in the same way. With `count` only about so many are read. Raises ValueError or OSError, worded
    for the user.
    """
    load = load_download if (data / DOWNLOADED).is_dir() else load_folders
    pictures, labels, classes = load(data, part, count)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return pictures[order].permute(0, 3, 1, 2).contiguous(), labels[order], classes


def load_download(data: Path, part: str, count: int | None) -> tuple[Tensor, Tensor, list[str]]:
    """The same of torchvision's download in `data`, but not mixed, and as bytes `[N, 32, 32, 3]`."""
    from torchvision.datasets import CIFAR10  # takes as long to import as PyTorch itself

    try:  # torchvision unpickles these files, but only after it has compared their checksums
        dataset = CIFAR10(str(data), train=part == "train")
    except (RuntimeError, OSError):
        raise ValueError(f"{data / DOWNLOADED} is damaged: download CIFAR-10 again") from None
    return torch.from_numpy(dataset.data[:count]), torch.tensor(dataset.targets[:count]), dataset.classes


def load_folders(data: Path, part: str, count: int | None) -> tuple[Tensor, Tensor, list[str]]:
    """The same of the ten folders in `data`/`part`, whose names are those of the classes."""
    folder = data / part
    if not folder.is_dir():
        raise ValueError(
            f"no pictures in {folder}: put a folder for each class there, such as {folder / 'cat'}, or let torchvision "
            f'download CIFAR-10: python -c "from torchvision.datasets import CIFAR10; '
            f"CIFAR10('{data}', download=True)\""
        )
    most, found = count and count // 10, {path.name for path in folder.iterdir() if path.is_dir()}
    files = [sorted(filter(is_picture, (folder / name).iterdir()))[:most] for name in CLASSES if name in found]
    if found != set(CLASSES) or not all(files):
        raise ValueError(f"{folder} should hold ten folders of pictures and no other: {', '.join(CLASSES)}")

    def read(path: Path) -> np.ndarray:
        picture = np.asarray(open_photograph(path))
        if picture.shape != (SIDE, SIDE, 3):
            raise ValueError(f"{path} has {picture.shape[1]}x{picture.shape[0]} pixels, not {SIDE}x{SIDE}")
        return picture

    pictures = np.stack(list(in_threads(read, sum(files, []), f"reading {folder}")))
    labels = torch.arange(10).repeat_interleave(torch.tensor([len(own) for own in files]))
    return torch.from_numpy(pictures), labels, CLASSES


def open_small(path: Path) -> Tensor:
    """Any picture as the networks know pictures, pressed into a square: bytes `[3, 32, 32]`."""
    picture = open_photograph(path).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def checksum(pictures: Pictures) -> str:
    """What tells one set of pictures from another: their number, and a checksum of them and their labels."""
    pixels, labels = pictures
    return f"{len(labels)} with checksum {zlib.crc32(labels.numpy(), zlib.crc32(pixels.numpy())):08x}"


def mirror(pictures: Tensor, which: Tensor) -> Tensor:
    """`pictures` `[B, C, H, W]`, those mirrored that `which` `[B]` says."""
    return torch.where(which.view(-1, 1, 1, 1), pictures.flip(3), pictures)


def vary(pictures: Tensor, generator: torch.Generator, limit: int, mode: str, mirrored: bool) -> Tensor:
    """A batch of bytes `[B, 3, H, W]` as values in [0, 1], each shifted up to `limit` pixels both ways at random.

    What comes in from outside is black ("constant") or the picture's own edge ("reflect"). With `mirrored` every second
    picture, at random, is mirrored.
    """
    count, _, height, width = pictures.shape
    padded = F.pad(pictures / 255, (limit,) * 4, mode=mode)
    places = padded.unfold(2, height, 1).unfold(3, width, 1)  # [B, 3, 2 limit + 1, 2 limit + 1, H, W], only a view
    down, right = torch.randint(2 * limit + 1, (2, count), generator=generator).to(pictures.device)
    batch = places[torch.arange(count, device=pictures.device), :, down, right]
    if mirrored:
        batch = mirror(batch, (torch.rand(count, generator=generator) < 0.5).to(pictures.device))
    return batch.contiguous(memory_format=torch.channels_last)


class TimedBatches(Batches):
    """Counts the seconds that its batches take to make."""

    seconds = 0.0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        source = super().__iter__()
        while True:
            began = time.perf_counter()
            batch = next(source, None)
            self.seconds += time.perf_counter() - began
            if batch is None:
                return
            yield batch


def plot_mistakes(path: Path, pictures: Tensor, labels: Tensor, scores: Tensor, classes: list[str]) -> None:
    """Draws the fifty mistakes of which the network was surest. It shows pictures: for `runs/` alone."""
    sureness, predictions = scores.softmax(dim=1).max(dim=1)
    wrong = torch.nonzero(predictions != labels)[:, 0]
    shown = wrong[sureness[wrong].argsort(descending=True, stable=True)][:50]
    with drawing(path, 13, 9, dpi=120, layout=None) as figure:
        figure.suptitle(
            f"Mistakes: {len(shown)} of {len(wrong)}, the surest first; what it is, and what it was taken for"
        )
        space = {"left": 0.02, "right": 0.98, "bottom": 0.02, "top": 0.88, "hspace": 0.5}
        for axes in figure.subplots(5, 10, gridspec_kw=space).flat:
            axes.axis("off")
        for axes, index in zip(figure.axes, shown.tolist(), strict=False):
            axes.imshow(pictures[index].permute(1, 2, 0).numpy())
            names = f"{classes[labels[index]]}\n{classes[predictions[index]]} {sureness[index]:.0%}"
            axes.set_title(names, fontsize=9)


def plot_variation(path: Path, epochs: list[Tensor]) -> None:
    """Draws a row for each of `epochs`: ten pictures `[10, 3, 32, 32]` in [0, 1], first as they are, then varied."""
    with drawing(path, 10, len(epochs) + 0.3) as figure:
        for number, (line, shown) in enumerate(zip(figure.subplots(len(epochs), 10), epochs, strict=True)):
            line[0].set_ylabel(f"epoch {number}" if number else "plain")
            for axes, picture in zip(line, shown, strict=False):  # of ten pictures in all, nine are learned
                axes.imshow(picture.permute(1, 2, 0).numpy())
                axes.set(xticks=[], yticks=[])
