"""Pictures of cats and dogs on disk in, tensors out (the cats and dogs tutorial, 数据获取与预处理).

    prepare(Path("PetImages"), Path("data/cats_dogs"))              copies 3,000 of 25,000 into its folders
    pictures = find_pictures(Path("data/cats_dogs/train"))          # [(photo, 0 for a cat or 1 for a dog), ...]
    images, labels, pictures = load_pictures(pictures, size=200)    # bytes [N, 3, 200, 200], and [N]
    training, kept_back = split(len(images), 0.2, seed=0)           # their numbers

2,000 pictures of 200x200 are 240 MB as bytes. So each is decoded once, before the training: no worker decodes it anew
in every epoch, and none can meet a damaged one an hour later.
"""

import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import random_split

from pictures import in_threads, is_picture, open_photograph

CLASSES = ["cat", "dog"]
MOST_LACKING = 5  # of our pictures; Microsoft's Cat/666.jpg is said to be damaged


class Picture(NamedTuple):
    photo: Path
    label: int  # its place in CLASSES


def prepare(source: Path, out: Path) -> None:
    """Copies our 2,000 pictures to learn and 1,000 to be tested on to `out`, as `find_pictures` wants them.

    `source` has the 25,000 as Kaggle gives them, `cat.0.jpg` and so on, or as Microsoft does, `Cat/0.jpg`. To learn are
    numbers 1 to 1,000 of each class, to be tested on those in val.txt. Raises ValueError or OSError, worded for users.
    """
    parts = {"train": [f"{name}.{number}.jpg" for name in CLASSES for number in range(1, 1001)]}
    parts["val"] = Path(__file__).with_name("val.txt").read_text().split()
    copies, lacking = {}, []
    for part, files in parts.items():
        for file in files:
            name, number, _ = file.split(".")
            ways = source / file, source / name.capitalize() / f"{number}.jpg"
            found = [path for path in ways if path.is_file() and path.stat().st_size]
            if found:
                copies[Path(part, name, file)] = found[0]
            else:
                lacking.append(file)
    said = f"{source} lacks {len(lacking)} of the {len(copies) + len(lacking)} pictures"
    if len(lacking) > MOST_LACKING:
        cure = "give the folder of Kaggle's cat.0.jpg, cat.1.jpg, ... or Microsoft's PetImages"
        raise ValueError(f"{said}, {lacking[0]} first: {cure}")
    if held := [part for part in parts if (out / part).exists()]:
        raise ValueError(f"{out / held[0]} is there already: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out) as folder:  # whoever stops it, or fills the disk, leaves no part of it
        for target, path in copies.items():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / target)
        for part in parts:
            os.replace(Path(folder, part), out / part)
    if lacking:
        print(f"warning: {said} ({', '.join(lacking)}): results will not be quite the table's", file=sys.stderr)
    counts = {part: sum(target.parts[0] == part for target in copies) for part in parts}
    print(f"{out}: " + ", ".join(f"{count} pictures in {part}" for part, count in counts.items()))


def find_pictures(folder: Path) -> list[Picture]:
    """The pictures in `folder`/cat and `folder`/dog; ValueError, worded for the user, if it is not laid out so."""
    from torchvision.datasets import ImageFolder  # takes as long to import as PyTorch itself

    wanted = f"there should be pictures in {folder / 'cat'} and in {folder / 'dog'}, and no other folder"
    try:
        found = ImageFolder(str(folder), is_valid_file=lambda name: is_picture(Path(name)))
    except FileNotFoundError:
        raise ValueError(wanted) from None
    if found.classes != CLASSES:
        raise ValueError(wanted)
    return [Picture(Path(name), label) for name, label in found.samples]


def open_picture(path: Path, size: int) -> Tensor:
    """The picture at `path`, made a square as by the tutorial's `Resize((224, 224))`: bytes [3, size, size]."""
    picture = open_photograph(path).resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def load_pictures(pictures: list[Picture], size: int, quiet: bool = False) -> tuple[Tensor, Tensor, list[Picture]]:
    """All pictures that can be read: bytes [N, 3, size, size], their labels [N], and which they are.

    Names the others on standard error, and counts them. Raises ValueError if none of a class can be read.
    """

    def load(picture: Picture) -> Tensor | str:
        try:
            return open_picture(picture.photo, size)
        except ValueError as error:
            return str(error)

    images = torch.empty(len(pictures), 3, size, size, dtype=torch.uint8)
    whole: list[Picture] = []
    for picture, loaded in zip(pictures, in_threads(load, pictures, "reading", quiet), strict=True):
        if isinstance(loaded, Tensor):
            images[len(whole)] = loaded
            whole.append(picture)
        elif not quiet:
            print(f"skipped: {loaded}", file=sys.stderr)
    if len(whole) < len(pictures) and not quiet:
        print(f"skipped {len(pictures) - len(whole)} of {len(pictures)} pictures", file=sys.stderr)
    if lost := {picture.label for picture in pictures} - {picture.label for picture in whole}:
        raise ValueError(f"none of the {' and '.join(f'{CLASSES[label]}s' for label in sorted(lost))} can be read")
    return images[: len(whole)], torch.tensor([picture.label for picture in whole]), whole


def split(count: int, val_percent: float, seed: int) -> tuple[Tensor, Tensor]:
    """The tutorial's random split of `count` pictures: the numbers of those to train on, and of those kept back."""
    n_val = int(count * val_percent)
    parts = random_split(range(count), [count - n_val, n_val], generator=torch.Generator().manual_seed(seed))
    training, kept_back = (torch.tensor(part.indices, dtype=torch.long) for part in parts)
    return training, kept_back


def shrink(images: Tensor, size: int) -> Tensor:
    """Bytes [N, 3, H, W] as bytes [N, 3, size, size]."""
    from torchvision.transforms.functional import resize  # late, as ImageFolder

    return torch.cat([resize(part, [size, size]) for part in images.split(100)])


def normalize(images: Tensor) -> Tensor:
    """Bytes to [-1, 1]: `ToTensor` and the tutorial's `Normalize` with a mean and a deviation of 0.5."""
    return images / 127.5 - 1
