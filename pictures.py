"""Any picture file in, pixels out: photographs of every format and mode, and masks of two values, whatever these are.

    image = open_photograph(path)    # 8-bit RGB, upright
    mask = read_mask(path)           # bool [H, W], True on the car

What cannot be read, or cannot be a mask, raises ValueError, its message meant for the user.
"""

import math
import re
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

Image.init()
# Pillow would tell a file's format from its content, and start Ghostscript for an EPS that is called .jpg.
FORMATS = [name for name in "AVIF BMP DIB GIF JPEG JPEG2000 PNG PPM TGA TIFF WEBP".split() if name in Image.OPEN]
LOSSY = ("AVIF", "JPEG", "JPEG2000", "MPO", "WEBP")
# Photographs that Pillow does not read, or only as thumbnails: how their names end, and how they begin.
RAW = "a camera's raw file"
FOREIGN = {
    RAW: r"(3fr|arw|cr[23w]|dcr|dng|erf|fff|iiq|kdc|mef|mos|mrw|n[er]f|nrw|orf|pef|raf|rw[2l]|sr[2fw]|x3f)$"
    r"|(II|MM).{6}CR|.{4}ftypcrx|FUJIFILM",
    "a HEIC picture": r"(heic|heif|hif)$|.{4}ftyp(he|mi|ms)",
    "a JPEG XL picture": r"jxl$|\xff\n|.{4}JXL ",
    "an AVIF picture": r"avifs?$|.{4}ftypavi",  # which Pillow reads since 11.3
    "a Photoshop file": r"(psb|psd)$|8BPS",
}
WANTED = "a mask is black, and white on the car"
# Pillow warns of a damaged EXIF (the picture can be read all the same), and of sizes that `opened` refuses.
# Set here, once: `warnings.catch_warnings` is not safe in threads, and pictures are read in several.
warnings.filterwarnings("ignore", module=r"PIL\.")


def is_picture(path: Path) -> bool:
    """Whether the name of `path` is a picture's, even if Pillow cannot read it, and not Thumbs.db or the like."""
    readable = Image.registered_extensions().get(path.suffix.lower()) in (*FORMATS, "MPO")
    return not path.name.startswith(".") and (readable or foreign(path) is not None)


def foreign(path: Path, first: bytes = b"") -> str | None:
    """What kind of picture that Pillow does not read `path` is, by its name or its first bytes; None if it is none."""
    said = path.suffix[1:].lower(), first.decode("latin-1")
    return next((kind for kind, sign in FOREIGN.items() if any(re.match(sign, text, re.DOTALL) for text in said)), None)


def in_threads(work: Callable[[Any], Any], items: list[Any], description: str, quiet: bool = False) -> Iterator[Any]:
    """`work` of each item, in order, with a progress bar; several at once, for Pillow decodes outside Python's lock."""
    with ThreadPoolExecutor() as pool:
        results = pool.map(work, items)
        yield from tqdm(results, description, len(items), unit="picture", leave=False, disable=quiet or None)


@contextmanager
def opened(path: Path, what: str = "") -> Iterator[Image.Image]:
    """The picture at `path`, upright, for a `with` block that decodes it; `what` stands before it in messages.

    Raises ValueError, its message meant for the user, if it cannot be opened or the block fails.
    """
    try:
        with path.open("rb") as file:
            kind = foreign(path, file.read(16))
        with Image.open(path, formats=FORMATS) as image:
            if image.format == "TIFF" and (kind == RAW or 50706 in image.tag_v2 or image.tag_v2.get(254, 0) & 1):
                kind = RAW  # by its name, DNGVersion or NewSubfileType: what Pillow would read is a thumbnail
                raise Image.UnidentifiedImageError
            # Pillow's lower limit, 89 million pixels: what is larger is more likely a bomb than a photograph, and would
            # take gigabytes here.
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            ImageOps.exif_transpose(image, in_place=True)
            yield image
    except FileNotFoundError:
        raise ValueError(f"there is no picture {path}") from None
    except Image.UnidentifiedImageError:
        why = f"{kind}, which Pillow does not read: save it as JPEG or PNG first"
        raise ValueError(f"{what}{path} is {why if kind else 'not a picture that Pillow can open safely'}") from None
    except Image.DecompressionBombError:
        limit = f"{Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels"
        raise ValueError(f"{what}{path} has more than {limit}: shrink it first") from None
    except Exception as error:  # Pillow's decoders raise almost anything for a damaged file
        raise ValueError(f"cannot read {what}{path}: {getattr(error, 'strerror', None) or error}") from None


def open_photograph(path: Path) -> Image.Image:
    """The picture at `path` as 8-bit RGB, upright; wide greys scaled, transparency laid on white, the first of frames.

    Raises ValueError, its message meant for the user, if there is no picture that can be read whole.
    """
    with opened(path) as image:
        profile = image.info.get("icc_profile") if image.mode == "RGB" else None
        if image.mode[0] in "IF":  # 16 or 32 bits; such a file says nothing of its white, so take the lowest usual one
            # One pixel that is no finite number would make all the others black or white.
            wide = np.nan_to_num(brightness(image).astype(np.float32), posinf=0, neginf=0)
            usual, high = (1, 255, 65535) if image.mode == "F" else (65535,), wide.max()
            scale = 255 / next((white for white in usual if high <= white), high)
            image = Image.fromarray((wide * scale + 0.5).clip(0, 255).astype(np.uint8))
        elif image.has_transparency_data:
            # White is what a viewer shows behind a cut-out, and the colour of Carvana's studio; the hidden pixels are
            # often black or garbage.
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
    image.info = {"icc_profile": profile} if profile else {}  # no leftovers that would steer how the overlay is saved
    return image


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
    solid = np.True_ if opacity is None else opacity >= 0.9 * opacity.max()
    if solid.all() and (opacity is None or opacity.any() or np.ptp(values)):
        return values, "brightness", lossy
    # A cut-out of one colour or of many is a mask by its opacity; one of two may be a mask by its colours, and cut out.
    seen, hidden = values[solid], values[opacity == opacity.min()]
    low, high = float(seen.min()), float(seen.max())
    many = abs(seen - (low + high) / 2) < 0.35 * (high - low)
    if hidden.min() > high if high - low <= 0.1 * high else many.mean() < 0.1:
        raise ValueError(f"its mask {path} says one thing by its colours and another by its opacity: {WANTED}")
    return opacity, "opacity", lossy


def brightness(image: Image.Image) -> np.ndarray:
    """How bright `image` is, [H, W], in its own numbers, however high; no two colours are equally bright."""
    if image.mode == "I":  # Pillow takes a TIFF's 32 bits for signed, whatever the TIFF says
        return np.asarray(image).view(np.int32 if 2 in getattr(image, "tag_v2", {}).get(339, ()) else np.uint32)
    if image.mode[0] in "1LIF":
        return np.asarray(image.convert("L") if image.mode == "1" else image)
    indexed = image.mode == "P"
    colours = np.reshape(image.getpalette(), (-1, 3)).astype(np.uint8) if indexed else np.asarray(image.convert("RGB"))
    red, green, blue = np.moveaxis(colours, -1, 0)
    if (red == green).all() and (green == blue).all():
        shades = np.ascontiguousarray(red)
    else:  # luminance, but for the 3, which keeps any two colours apart
        shades = (299000.0 * red + 587003.0 * green + 113997.0 * blue) / 1e6
    return shades.take(np.asarray(image)) if indexed else shades


def two_levels(path: Path, values: np.ndarray, lossy: bool) -> tuple[float, float]:
    """The two levels of a mask's `values` [H, W], equal if it has one; edges may be soft.

    Raises ValueError, naming `path`, if there is a third, as in a trimap, or are many, as in a photograph.
    """
    low, high = least, most = float(values.min()), float(values.max())
    if not math.isfinite(most - least):
        raise ValueError(f"its mask {path} has values that are no numbers: {WANTED}")
    if min(values.shape) < 3 or ((values == low) | (values == high)).all():
        return low, high
    # A level fills areas. Where values are few, each area counts; where many, areas waver and edges overshoot.
    few = not lossy and np.unique(values).size <= 16
    areas = blocks(values, np.maximum) - blocks(values, np.minimum) <= (0 if few else 0.02 * (high - low))
    inner, middle = values[1:-1, 1:-1], (low + high) / 2
    if not few:
        dark, bright = inner[areas & (inner <= middle)], inner[areas & (inner > middle)]
        low, high = float(np.median(dark)) if dark.size else low, float(np.median(bright)) if bright.size else high
    away = abs(inner - (low + high) / 2) / (high - low)  # from the middle; 0.5 is a level
    third = areas & ((inner != low) & (inner != high) if few else abs(away - 0.5) > 0.15)
    unclear = 0 if few else (away < 0.35).mean() - max(0.1, (areas & ~third).mean())
    if third.mean() > (0.001 if few else 0.0125) or (away > 1).mean() > 0.001 or unclear > 0:
        others = ", ".join(f"{value:g}" for value in np.unique(inner[third])) if few else "many between"
        raise ValueError(f"its mask {path} has more than two values, {least:g}, {others} and {most:g}: {WANTED}")
    return low, high


def blocks(values: np.ndarray, pick: np.ufunc) -> np.ndarray:
    """What `pick`, np.maximum or np.minimum, picks of each 3x3 block of `values` [H, W]: [H - 2, W - 2]."""
    rows = pick(pick(values[:-2], values[1:-1]), values[2:])
    return pick(pick(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
