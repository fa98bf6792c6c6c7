"""Photographs and masks on disk in, tensors out: the pairs, the split by car, the samples and their variation.

    pairs = find_pairs(Path("data/carvana"))                        # [Pair(photo, mask, half, share), ...]
    training, selection, report = split_by_car(pairs, 14, seed=0)   # no car is in two of them
    dataset = CarDataset(training, *shape_for(pairs, 572), seed=0)  # images [3, H, W] and masks [1, H, W]

`open_photograph` reads any picture for the network, whatever its format, mode or orientation.
"""

import math
import os
import random
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

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
FORMATS = [name for name in "AVIF BMP DIB GIF JPEG JPEG2000 PNG PPM TGA TIFF WEBP".split() if name in Image.OPEN]
LOSSY = ("AVIF", "JPEG", "JPEG2000", "MPO", "WEBP")
# Photographs that Pillow does not read, or only as a thumbnail: how they begin, and how their names end.
RAW = "a camera's raw file"
FOREIGN = {
    "a HEIC picture": (rb".{4}ftyp(he|mi|ms)", "heic|heif|hif"),
    "an AVIF picture": (rb".{4}ftypavi", "avifs?"),  # Pillow reads it since 11.3
    "a JPEG XL picture": (rb"\xff\x0a|.{4}JXL ", "jxl"),
    "a Photoshop file": (rb"8BPS", "ps[bd]"),
    RAW: (
        rb"(II|MM).{6}CR|.{4}ftypcrx|FUJIFILM",
        "3fr|arw|cr[23w]|dcr|dng|erf|fff|iiq|kdc|mef|mos|mrw|n[er]f|nrw|orf|pef|raf|rw[2l]|sr[2fw]|x3f",
    ),
}
WANTED = "a mask is black, and white on the car"
# Pillow warns of a damaged EXIF (the picture can be read all the same), and of sizes that `opened` refuses.
# Set here, once: `warnings.catch_warnings` is not safe in threads, and pictures are read in several.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Pair(NamedTuple):
    """A photograph and its mask; `half` and `share` are None unless `find_pairs` looked at the mask."""

    photo: Path
    mask: Path
    half: float | None = None  # what is brighter is car; the same for all masks of a set
    share: float | None = None  # of the mask that is car, from 0 to 1


class Look(NamedTuple):
    """What a mask shows: the two levels, equal if there is one, of its "brightness" or its "opacity"."""

    kind: str
    low: float
    high: float
    share: float  # of the mask that is nearer to the higher
    slack: float  # how far from other masks' levels its own may be, as a part of the range


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
    faults += [look for look in looks.values() if isinstance(look, str)]
    low, high, others = common_levels({pair: look for pair, look in looks.items() if isinstance(look, Look)})
    faults += others
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise ValueError(f"{count} in the pictures in {data}:\n  " + "\n  ".join(faults))
    if not pairs:
        raise ValueError(f"no photographs in {photos}")
    if looks and low == high:
        raise ValueError(f"every mask in {masks} is {'full' if low else 'empty'}, {low:g} throughout: {WANTED}")
    half = (low + high) / 2
    return [Pair(*pair[:2], half, look.share or float(look.low > half)) for pair, look in looks.items()] or pairs


def is_picture(path: Path) -> bool:
    """Whether the name of `path` is a picture's, even if Pillow cannot read it, and not Thumbs.db or the like."""
    readable = Image.registered_extensions().get(path.suffix.lower()) in (*FORMATS, "MPO")
    return not path.name.startswith(".") and (readable or foreign(path) is not None)


def foreign(path: Path, first: bytes = b"") -> str | None:
    """What kind of picture that Pillow does not read `path` is, by its first bytes or its name."""
    for kind, (beginning, ending) in FOREIGN.items():
        if re.match(beginning, first, re.DOTALL) or re.fullmatch(f"[.]({ending})", path.suffix.lower()):
            return kind
    return None


def pictures_by_name(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The pictures in `folder` by name, without ending and "_mask"; and of each second one of a name, what is wrong."""
    pictures: dict[str, Path] = {}
    faults = []
    for path in sorted(filter(is_picture, folder.iterdir())):
        first = pictures.setdefault(path.stem.removesuffix("_mask"), path)
        if first != path:
            faults.append(f"{path.name}: a second picture beside {first}")
    return pictures, faults


def in_threads(work: Callable[[Any], Any], items: list[Any], description: str, quiet: bool = False) -> Iterator[Any]:
    """`work` of each item, in order, with a progress bar; several at once, for Pillow decodes outside Python's lock."""
    with ThreadPoolExecutor() as pool:
        results = pool.map(work, items)
        yield from tqdm(results, description, len(items), unit="picture", leave=False, disable=quiet or None)


def look_at(pair: Pair) -> Look | str:
    """What a mask shows, or what is wrong with it or its photograph."""
    try:
        width, height = open_photograph(pair.photo).size
        values, kind, lossy = mask_values(pair.mask)
        if values.shape != (height, width):
            size = "{1}x{0}".format(*values.shape)
            raise ValueError(f"{width}x{height} pixels, but its mask has {size}")
        low, high = two_levels(pair.mask, values, lossy)
    except ValueError as error:
        return f"{pair.photo.name}: {error}"
    share = np.count_nonzero(values > (low + high) / 2) / values.size
    return Look(kind, low, high, share, 0.1 if lossy or low < high else 0.002)


def common_levels(looks: dict[Pair, Look]) -> tuple[float, float, list[str]]:
    """The two levels that most masks show, equal if none shows two; and of each mask that shows others, what is wrong."""
    of_two = [look[:3] for look in looks.values() if look.low < look.high]
    (kind, low, high), _ = Counter(of_two or [("brightness", 0, 0)]).most_common(1)[0]
    if not of_two and looks:
        kinds, lows, highs, *_ = zip(*looks.values(), strict=True)
        kind, low, high = kinds[0], min(lows), max(highs)
    faults = []
    for pair, look in looks.items():
        slack, two = look.slack * (high - low), look.low < look.high
        near = abs(look.low - low) <= slack, abs(look.high - high) <= slack
        if look.kind != kind or not (all(near) if two else any(near)):
            has = f"{look.kind} {look.low:g} and {look.high:g}" if two else f"{look.kind} {look.low:g} throughout"
            most = f"most have {kind} {low:g} and {high:g}: give all the same two"
            faults.append(f"{pair.photo.name}: its mask {pair.mask} has {has}, but {most}")
    return low, high, faults


def read_mask(path: Path, half: float | None = None) -> np.ndarray:
    """The mask at `path` as bool [H, W], True on the car, where it is brighter than `half`.

    Without `half` it is taken by itself: of its two levels, any two, the brighter is the car; one is all car unless it
    is black. Raises ValueError if it cannot be read, or shows more than two levels without `half`.
    """
    values, _, lossy = mask_values(path)
    if half is None:
        low, high = two_levels(path, values, lossy)
        half = (low + high) / 2 if low < high else 0
    return values > half


def mask_values(path: Path) -> tuple[np.ndarray, str, bool]:
    """What tells car from ground in the mask at `path` [H, W], whether it is "brightness" or "opacity", and if lossy.

    Raises ValueError if it cannot be read, or says one thing by its colours and another by its opacity.
    """
    with opened(path, "its mask ") as image:
        lossy, opacity = image.format in LOSSY, None
        if image.has_transparency_data and image.mode[0] not in "IF":
            image = image.convert("RGBA")
            image, opacity = image.convert("RGB"), np.asarray(image.getchannel("A"))
        values = brightness(image)
    if opacity is None or opacity.min() >= 0.9 * opacity.max() and (opacity.any() or np.ptp(values)):
        return values, "brightness", lossy
    # A cut-out of one colour or of many is a mask by its opacity; one of two may be a mask by its colours, and cut out.
    clear, solid = float(opacity.min()), float(opacity.max())
    seen, hidden = values[opacity >= clear + 0.9 * (solid - clear)], values[opacity == clear]
    low, high = float(seen.min()), float(seen.max())
    margin = 0.15 * (high - low)
    plain = high - low <= 0.1 * high
    if hidden.min() > high if plain else np.mean((seen > low + margin) & (seen < high - margin)) < 0.1:
        raise ValueError(f"its mask {path} says one thing by its colours and another by its opacity: {WANTED}")
    return opacity, "opacity", lossy


def brightness(image: Image.Image) -> np.ndarray:
    """How bright `image` is, [H, W], in its own numbers, however high; no two colours are equally bright."""
    if image.mode == "I":  # Pillow takes the 32 bits of a TIFF for signed, whatever it says
        signed = 2 in getattr(image, "tag_v2", {}).get(339, ())
        return np.asarray(image).view(np.int32 if signed else np.uint32).astype(float)
    if image.mode[0] in "1LIF":
        return np.asarray(image.convert("L") if image.mode == "1" else image)
    palette = image.mode == "P"
    colours = np.array(image.getpalette(), np.uint8).reshape(-1, 3) if palette else np.asarray(image.convert("RGB"))
    red, green, blue = np.moveaxis(colours, -1, 0)
    if (red == green).all() and (green == blue).all():
        shades = np.ascontiguousarray(red)
    else:  # luminance, but for the 3, which keeps any two colours apart
        shades = (299000.0 * red + 587003.0 * green + 113997.0 * blue) / 1e6
    return shades.take(np.asarray(image)) if palette else shades


def two_levels(path: Path, values: np.ndarray, lossy: bool) -> tuple[float, float]:
    """The two levels of a mask's `values` [H, W], equal if it has one.

    A level is what fills areas; the edges between may be soft by JPEG, blur or resizing. Raises ValueError, naming
    `path`, if there is a third, as in a trimap, or are many, as in a photograph.
    """
    low, high = least, most = float(values.min()), float(values.max())
    if not math.isfinite(most - least):
        raise ValueError(f"its mask {path} has values that are no numbers: {WANTED}")
    if ((values == low) | (values == high)).all():
        return low, high
    few = not lossy and np.unique(values).size <= 16
    inner, margin = values[1:-1, 1:-1], 0 if few else 0.15
    flat = blocks(values, np.maximum) - blocks(values, np.minimum) <= (0 if few else 0.02 * (high - low))
    if not few:  # resizing overshoots at edges
        areas, half = inner[flat], (low + high) / 2
        dark, bright = areas[areas <= half], areas[areas > half]
        low, high = float(np.median(dark)) if dark.size else low, float(np.median(bright)) if bright.size else high
    step = high - low
    between = (inner > low + margin * step) & (inner < high - margin * step)
    third = between & flat | (abs(inner - (low + high) / 2) > step)
    if third.sum() > 0.001 * third.size or not few and between.sum() > max(0.1 * third.size, (flat & ~between).sum()):
        also = [f"{value:g}" for value in np.unique(inner[third])] if few else ["many between"]
        raise ValueError(
            f"its mask {path} has more than two values, {', '.join([f'{least:g}', *also])} and {most:g}: {WANTED}"
        )
    return low, high


def blocks(values: np.ndarray, pick: np.ufunc) -> np.ndarray:
    """What `pick`, np.minimum or np.maximum, picks of each 3x3 block of `values` [H, W]: [H - 2, W - 2]."""
    rows = pick(pick(values[:-2], values[1:-1]), values[2:])
    return pick(pick(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


@contextmanager
def opened(path: Path, what: str = "") -> Iterator[Image.Image]:
    """The picture at `path`, upright, for a `with` block that decodes it; `what` it is stands in messages before `path`.

    Raises ValueError, its message meant for the user, if it cannot be opened or the block fails.
    """
    try:
        with path.open("rb") as file:
            first = file.read(16)
        with Image.open(path, formats=FORMATS) as image:
            tags = getattr(image, "tag_v2", {})
            if tags and (tags.get(254, 0) & 1 or 50706 in tags or foreign(path, first) == RAW):
                raise ValueError(f"it is {RAW}: save it as JPEG or PNG first")  # Pillow would read its thumbnail
            # Pillow's lower limit, 89 million pixels: what is larger is more likely a bomb than a photograph, and would
            # take gigabytes here.
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            ImageOps.exif_transpose(image, in_place=True)
            yield image
    except FileNotFoundError:
        raise ValueError(f"there is no picture {path}") from None
    except Image.UnidentifiedImageError:
        if kind := foreign(path, first):
            raise ValueError(f"cannot read {what}{path}: it is {kind}: save it as JPEG or PNG first") from None
        raise ValueError(f"{what}{path} is not a picture that Pillow can open safely") from None
    except Image.DecompressionBombError:
        limit = f"{Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels"
        raise ValueError(f"{what}{path} has more than {limit}: shrink it first") from None
    except Exception as error:  # Pillow's decoders raise almost anything for a damaged file
        raise ValueError(f"cannot read {what}{path}: {getattr(error, 'strerror', None) or error}") from None


def open_photograph(path: Path) -> Image.Image:
    """The picture at `path` as 8-bit RGB, upright; the first frame of an animated one.

    Raises ValueError, its message meant for the user, if there is no picture that can be read whole.
    """
    with opened(path) as image:
        return to_rgb(image)


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


def shape_for(pairs: list[Pair], size: int) -> tuple[int, int]:
    """Height and width to train at: the first photograph's shape, `size` its short side, both multiples of 16.

    All photographs are brought to this shape, for a batch has one; Carvana's all have the same.
    """
    width, height = open_photograph(pairs[0].photo).size
    scale = size / min(width, height)
    return tuple(16 * max(1, round(side * scale / 16 + 0.25)) for side in (height, width))


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
