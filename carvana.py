"""Photographs and masks on disk in, tensors out: the pairs, the split by car, the samples and their variation.

    pairs = find_pairs(Path("data/carvana"))                        # [(photograph, mask), ...]
    training, selection, report = split_by_car(pairs, 14, seed=0)   # no car is in two of them
    dataset = CarDataset(training, *shape_for(pairs, 572), seed=0)  # images [3, H, W] and masks [1, H, W]

`open_photograph` reads any picture for the network, whatever its format, mode or orientation.
"""

import random
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from training import epoch_generator

FOLDERS = (("train", "train_masks"), ("train_hq", "train_masks"), ("imgs", "masks"))
CACHE_BYTES = 2**30
Image.init()
# Pillow would tell a file's format from its content, and start Ghostscript for an EPS that is called .jpg.
FORMATS = [
    name
    for name in ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
    if name in Image.OPEN
]
# Pillow warns of a damaged EXIF (the picture can be read all the same), and of sizes that `open_photograph` refuses.
# Set here, once: `warnings.catch_warnings` is not safe in threads, and pictures are read in several.
warnings.filterwarnings("ignore", module=r"PIL\.")

Pair = tuple[Path, Path]  # a photograph and its mask


def find_pairs(data: Path, check: bool = True) -> list[Pair]:
    """The photographs in `data` with their masks, in the order of their names.

    Takes Kaggle's `train/CAR_VIEW.jpg` (or `train_hq/`) and `train_masks/CAR_VIEW_mask.gif`, or `imgs/` and `masks/`
    with equal names.
    With `check` each is opened once, to see that it is whole. Raises ValueError, its message meant for the user, that
    names every pair that cannot be used; OSError if a folder cannot be read.
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
    pairs = [(path, mask_of[name]) for name, path in photo_of.items() if name in mask_of]
    if check:
        faults += [fault for fault in in_threads(pair_fault, pairs, "checking") if fault]
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise ValueError(f"{count} in the pictures in {data}:\n  " + "\n  ".join(faults))
    if not pairs:
        raise ValueError(f"no photographs in {photos}")
    return pairs


def is_picture(path: Path) -> bool:
    """Whether the name of `path` is a picture's, unlike those that systems leave in folders, such as Thumbs.db."""
    return not path.name.startswith(".") and Image.registered_extensions().get(path.suffix.lower()) in FORMATS


def pictures_by_name(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The pictures in `folder` by name, without ending and "_mask"; and of each second one of a name, what is wrong."""
    pictures: dict[str, Path] = {}
    faults = []
    for path in sorted(folder.iterdir()):
        if not is_picture(path):
            continue
        first = pictures.setdefault(path.stem.removesuffix("_mask"), path)
        if first != path:
            faults.append(f"{path.name}: a second picture beside {first}")
    return pictures, faults


def in_threads(work: Callable[[Any], Any], items: list[Any], description: str, quiet: bool = False) -> Iterator[Any]:
    """`work` of each item, in order, with a progress bar; several at once, for Pillow decodes outside Python's lock."""
    with ThreadPoolExecutor() as pool:
        results = pool.map(work, items)
        yield from tqdm(results, description, len(items), unit="picture", leave=False, disable=quiet or None)


def pair_fault(pair: Pair) -> str | None:
    """What is wrong with a photograph and its mask, None if nothing."""
    photo, mask = pair
    try:
        size, (height, width) = open_photograph(photo).size, read_mask(mask).shape
    except ValueError as error:
        return f"{photo.name}: {error}"
    if size != (width, height):
        return f"{photo.name}: {size[0]}x{size[1]} pixels, but its mask has {width}x{height}"
    return None


def read_mask(path: Path) -> np.ndarray:
    """The mask at `path` as bool [H, W], True on the car; its two values may be any, the brighter is the car.

    A mask of one value shows no car if it is black, else nothing but car. Raises ValueError if it cannot be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            values = np.asarray(ImageOps.exif_transpose(image).convert("L"))
    except Image.UnidentifiedImageError:
        raise ValueError(f"its mask {path} is not a picture that Pillow can open safely") from None
    except Exception as error:  # Pillow's decoders raise almost anything for a damaged file
        raise ValueError(f"cannot read its mask {path}: {getattr(error, 'strerror', None) or error}") from None
    low, high = int(values.min()), int(values.max())
    return values > (low + high) / 2 if high > low else values > 0


def open_photograph(path: Path) -> Image.Image:
    """The picture at `path` as 8-bit RGB, upright; the first frame of an animated one.

    Raises ValueError, its message meant for the user, if there is no picture that can be read whole.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            # Pillow's lower limit, 89 million pixels: what is larger is more likely a bomb than a photograph, and would
            # take gigabytes here.
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            return to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise ValueError(f"there is no picture {path}") from None
    except Image.UnidentifiedImageError:
        raise ValueError(f"{path} is not a picture that Pillow can open safely") from None
    except Image.DecompressionBombError:
        limit = f"{Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels"
        raise ValueError(f"{path} has more than {limit}: shrink it first") from None
    except Exception as error:  # Pillow's decoders raise almost anything for a damaged file
        raise ValueError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow's as 8-bit RGB: wider greys scaled (Pillow would clip them), transparency laid on white."""
    profile = image.info.get("icc_profile") if image.mode == "RGB" else None
    if image.mode[0] in "IF":  # 16 or 32 bits; such a file says nothing of its white, so take the lowest usual one
        # One pixel that is no finite number would make all the others black or white.
        floats = image.mode == "F"
        wide = Image.fromarray(np.nan_to_num(np.asarray(image), posinf=0, neginf=0)) if floats else image.convert("I")
        usual = (1, 255, 65535) if floats else (65535,)
        high = wide.getextrema()[1]
        scale = 255 / next((white for white in usual if high <= white), high)
        image = wide.convert("F").point(lambda value: value * scale + 0.5).convert("L")
    elif image.has_transparency_data:
        # White is what a viewer shows behind a cut-out, and the colour of Carvana's studio; the hidden pixels are often
        # black or garbage.
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    image.info = {"icc_profile": profile} if profile else {}  # no leftovers that would steer how the overlay is saved
    return image


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


def fingerprint(pairs: list[Pair]) -> str:
    """What tells one set of photographs from another: their number, and a checksum of their names."""
    names = "\n".join(photo.name for photo, _ in pairs)
    return f"{len(pairs)} with checksum {zlib.crc32(names.encode()):08x}"


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


def shape_for(pairs: list[Pair], size: int) -> tuple[int, int]:
    """Height and width to train at: the first photograph's shape, `size` its short side, both multiples of 16.

    All photographs are brought to this shape, for a batch has one; Carvana's all have the same.
    """
    width, height = open_photograph(pairs[0][0]).size
    scale = size / min(width, height)
    return tuple(16 * max(1, round(side * scale / 16 + 0.25)) for side in (height, width))


def load_sample(pair: Pair, height: int, width: int) -> Tensor:
    """A photograph and its mask at `height` x `width`, uint8 [4, H, W]: red, green, blue from 0 to 255, mask 0 or 1."""
    image = open_photograph(pair[0]).resize((width, height), Image.Resampling.BILINEAR)
    mask = Image.fromarray(read_mask(pair[1]).astype(np.uint8) * 255).resize((width, height), Image.Resampling.BILINEAR)
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
