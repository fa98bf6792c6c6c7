"""Photographs and masks on disk in, tensors out: the pairs, the split by car, the samples and their variation.

pairs = find_pairs(Path("data/carvana"))                        # [Pair(photo, mask, half, share), ...]
training, selection, report = split_by_car(pairs, 14, seed=0)   # no car is in two of them
dataset = CarDataset(training, *shape_for(pairs, 572), seed=0)  # images [3, H, W] and masks [1, H, W]
"""

import os
import random
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pictures import WANTED, in_threads, is_picture, mask_values, open_photograph, read_mask, two_levels
from training import epoch_generator

FOLDERS = (("train", "train_masks"), ("train_hq", "train_masks"), ("imgs", "masks"))
CACHE_BYTES = 2**30


class Pair(NamedTuple):
    """A photograph and its mask, and what `find_pairs` learns by looking at the mask."""

    photo: Path
    mask: Path
    half: float | None = None  # what is brighter is car; the same for all masks of a set
    share: float | None = None  # of the mask that is car, from 0 to 1


def find_pairs(data: Path, check: bool = True) -> list[Pair]:
    """The photographs in `data` with their masks, in the order of their names.

    Takes Kaggle's `train/CAR_VIEW.jpg` (or `train_hq/`) and `train_masks/CAR_VIEW_mask.gif`, or `imgs/` and `masks/`
    with equal names.
    With `check` each is opened once, to see that it is whole, and that all masks show the same two levels. Raises
    ValueError, its message meant for the user, that names every pair that cannot be used, or says that all masks are
    empty or full; OSError if a folder cannot be read.
    """
    layout = next(((data / photos, data / masks) for photos, masks in FOLDERS if (data / photos).is_dir()), None)
    if layout is None:
        raise ValueError(
            f"no photographs in {data}: there should be {data / 'train'} and {data / 'train_masks'}, unpacked from "
            "train_hq.zip or train.zip and train_masks.zip of https://www.kaggle.com/c/carvana-image-masking-challenge"
        )
    photos, masks = layout
    if not masks.is_dir():
        raise ValueError(f"{photos} has no masks: there should be a folder {masks}")
    photo_of, doubles = pictures_by_name(photos)
    mask_of, double_masks = pictures_by_name(masks)
    faults = doubles + double_masks
    faults += [f"{path.name}: no mask in {masks}" for name, path in photo_of.items() if name not in mask_of]
    faults += [f"{path.name}: no photograph in {photos}" for name, path in mask_of.items() if name not in photo_of]
    pairs = [Pair(path, mask_of[name]) for name, path in photo_of.items() if name in mask_of]
    looks = dict(zip(pairs, in_threads(look_at, pairs, "checking"), strict=True)) if check else {}
    seen = {pair: look for pair, look in looks.items() if isinstance(look, tuple)}
    low, high, others = common_levels(seen) if seen else (0, 0, [])
    faults += [look for look in looks.values() if isinstance(look, str)] + others
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise ValueError(f"{count} in the pictures in {data}:\n  " + "\n  ".join(faults))
    if not pairs:
        raise ValueError(f"no photographs in {photos}")
    if seen and low == high:
        raise ValueError(f"every mask in {masks} is {'full' if low else 'empty'}, {low:g} throughout: {WANTED}")
    half = (low + high) / 2
    return [Pair(*pair[:2], half, look[3] or float(look[1] > half)) for pair, look in seen.items()] or pairs


def pictures_by_name(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The pictures in `folder` by name, without ending and "_mask"; and of each second one of a name, what is wrong."""
    pictures: dict[str, Path] = {}
    faults = []
    for path in sorted(filter(is_picture, folder.iterdir())):
        first = pictures.setdefault(path.stem.removesuffix("_mask"), path)
        if first != path:
            faults.append(f"{path.name}: a second picture beside {first}")
    return pictures, faults


def look_at(pair: Pair) -> tuple[str, float, float, float, float] | str:
    """What a mask shows, or, as text, what is wrong with it or its photograph.

    The first is (levels of what, low, high, share nearer to high, slack for low and high as a part of their range).
    """
    try:
        size = open_photograph(pair.photo).size
        values, kind, lossy = mask_values(pair.mask)
        height, width = values.shape
        if size != (width, height):
            raise ValueError(f"{size[0]}x{size[1]} pixels, but its mask has {width}x{height}")
        low, high = two_levels(pair.mask, values, lossy)
    except ValueError as error:
        return f"{pair.photo.name}: {error}"
    share = np.count_nonzero(values > (low + high) / 2) / values.size
    return kind, low, high, share, 0.1 if lossy or low < high else 0.002


def common_levels(looks: dict[Pair, tuple]) -> tuple[float, float, list[str]]:
    """The two levels that most masks show, equal if none shows two; and what is wrong with each mask of others."""
    levels = sorted(look[:3] for look in looks.values())
    extremes = levels[0][0], min(low for _, low, _ in levels), max(high for *_, high in levels)
    two = [look for look in levels if look[1] < look[2]] or [extremes]
    most, low, high = two[len(two) // 2]
    faults = []
    for pair, (kind, first, last, _, slack) in looks.items():
        slack *= high - low
        near = abs(first - low) <= slack, abs(last - high) <= slack
        if kind != most or not (all(near) if first < last else any(near)):
            shown = f"{kind} {first:g} and {last:g}" if first < last else f"{kind} {first:g} throughout"
            wanted = f"most have {most} {low:g} and {high:g}: give all the same two"
            faults.append(f"{pair.photo.name}: its mask {pair.mask} has {shown}, but {wanted}")
    return low, high, faults


def car_of(pair: Pair) -> str:
    """The car that a photograph shows: CAR of Kaggle's CAR_VIEW, 12 hexadecimal digits and two decimal ones.

    A photograph with any other name, such as a camera's IMG_0001, stands for itself.
    """
    stem = pair[0].stem
    return stem[:12] if re.fullmatch(r"[0-9a-f]{12}_\d\d", stem) else stem


def how_split(pairs: list[Pair]) -> str:
    """What `split_by_car` goes by in these photographs, as the end of a sentence."""
    named = sum(car_of(pair) != pair[0].stem for pair in pairs)
    if named == len(pairs):
        return "split by car"
    other = "split by photograph, for their names do not say which car they show"
    return f"split by car where names say it ({named} photographs), else by photograph" if named else other


def how_shared(pairs: list[Pair]) -> str:
    """How much of the photographs is car, by masks that `find_pairs` looked at, as the end of a sentence."""
    shares = [pair.share for pair in pairs]
    return f"car on {sum(shares) / len(shares):.1%} of a picture ({min(shares):.1%} to {max(shares):.1%})"


def fingerprint(pairs: list[Pair]) -> str:
    """What tells one set of photographs from another: their number, and a checksum of their names."""
    names = "\n".join(pair[0].name for pair in pairs)
    return f"{len(pairs)} with checksum {zlib.crc32(os.fsencode(names)):08x}"


def split_by_car(pairs: list[Pair], val_cars: int, seed: int) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Pairs to train on, to select on and to report on; the last two show `val_cars` cars each, chosen by the seed.

    Raises ValueError, its message meant for the user, if that leaves no car to train on.
    """
    cars = sorted({car_of(pair) for pair in pairs})
    if len(cars) <= 2 * val_cars:
        raise ValueError(
            f"keeping 2 x {val_cars} cars out leaves none of the {len(cars)} to train on (photographs count as one "
            "car where they are named as Kaggle's are, 0cdf5b5d0ce1_01.jpg to _16.jpg): choose a smaller --val-cars"
        )
    random.Random(seed).shuffle(cars)
    selection, report = set(cars[:val_cars]), set(cars[val_cars : 2 * val_cars])
    kept_out = selection | report
    return (
        [pair for pair in pairs if car_of(pair) not in kept_out],
        [pair for pair in pairs if car_of(pair) in selection],
        [pair for pair in pairs if car_of(pair) in report],
    )


def shape_for(pairs: list[Pair], size: int, pad: bool = True) -> tuple[int, int]:
    """Height and width to train at: the first photograph's shape, `size` its short side; with `pad` multiples of 16.

    All photographs are brought to this shape, for a batch has one; Carvana's all have the same.
    """
    width, height = open_photograph(pairs[0].photo).size
    scale, multiple = size / min(width, height), 16 if pad else 1
    return tuple(multiple * max(1, round(side * scale / multiple + 0.25)) for side in (height, width))


def load_sample(pair: Pair, height: int, width: int) -> Tensor:
    """A photograph and its mask at `height` x `width`, uint8 [4, H, W]: red, green, blue from 0 to 255, mask 0 or 1."""
    image = open_photograph(pair.photo).resize((width, height), Image.Resampling.BILINEAR)
    mask = Image.fromarray(read_mask(pair.mask, pair.half).astype(np.uint8) * 255)
    mask = mask.resize((width, height), Image.Resampling.BILINEAR)
    sample = np.dstack([np.asarray(image), np.asarray(mask) > 127])
    return torch.from_numpy(sample).permute(2, 0, 1).contiguous()


def augment(sample: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the samples mirrored, a third cut closer by up to a fifth, the light of all changed; [4, H, W] uint8."""
    flip, close, share, top, left, light, *tint = torch.rand(9, generator=generator).tolist()
    _, height, width = sample.shape
    if flip < 0.5:
        sample = sample.flip(2)
    if close < 1 / 3:
        share = 1 - 0.2 * share
        rows, columns = round(share * height), round(share * width)
        top, left = round(top * (height - rows)), round(left * (width - columns))
        cut = sample[None, :, top : top + rows, left : left + columns]
        sample = F.interpolate(cut.float(), size=(height, width), mode="bilinear", align_corners=False)[0]
        sample = sample.round().to(torch.uint8)
    gains = [0.8 + 0.4 * light + 0.1 * (channel - 0.5) for channel in tint]
    image = (sample[:3] * torch.tensor(gains).view(3, 1, 1)).clamp(0, 255).to(torch.uint8)
    return torch.cat([image, sample[3:]])


class CarDataset(Dataset):
    """Photographs and masks of one size, varied anew in each epoch.

    What a sample looks like depends on seed, epoch and index alone, not on the worker that makes it.
    """

    def __init__(self, pairs: list[Pair], height: int, width: int, seed: int, quiet: bool = False) -> None:
        self.pairs, self.height, self.width, self.seed = pairs, height, width, seed
        self.epoch = 1
        # Decoding a photograph costs much beside training on it at 96x144, and little beside training at 576x864.
        # Loaded beforehand, for what a worker process keeps is lost with it at the end of the epoch.
        self.samples: Tensor | None = None
        if len(pairs) * 4 * height * width <= CACHE_BYTES:
            self.samples = torch.empty(len(pairs), 4, height, width, dtype=torch.uint8)
            loaded = in_threads(self.load, range(len(pairs)), f"loading at {height}x{width}", quiet)
            for index, sample in enumerate(loaded):
                self.samples[index] = sample

    def load(self, index: int) -> Tensor:
        return load_sample(self.pairs[index], self.height, self.width)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """An image [3, H, W] in [0, 1], and its mask [1, H, W] of 0 and 1."""
        sample = self.load(index) if self.samples is None else self.samples[index]
        sample = augment(sample, epoch_generator(self.seed, self.epoch, index + 1))
        return sample[:3] / 255, sample[3:].float()
