"""Photographs and masks are looked at before they are trained on, split by car, and varied."""

import io
import os
import re
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter
from test_train_unet import draw, draw_cars, no_mask
from torch.utils.data import DataLoader

import carvana
from carvana import (
    CarDataset,
    Pair,
    augment,
    car_of,
    find_pairs,
    fingerprint,
    how_shared,
    load_sample,
    shape_for,
    split_by_car,
)
from pictures import is_picture, open_photograph, read_mask
from training import epoch_generator

REAL = Path(__file__).parent.parent.parent / "shared" / "data" / "carvana_full" / "train_masks"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Six drawn cars, two views each; no test may change them."""
    return draw_cars(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def own_data(tmp_path) -> Path:
    """Three drawn cars, one view each, for a test that damages them."""
    return draw_cars(tmp_path / "data", cars=3, views=1)


# Finding pairs


def test_photographs_and_masks_are_found_in_kaggles_layout(data):
    pairs = find_pairs(data)
    assert len(pairs) == 12
    assert [path.name for path in pairs[0][:2]] == ["ca0000000000_01.png", "ca0000000000_01_mask.gif"]


@pytest.mark.parametrize("mask_name", ["a.png", "a_mask.png"])
def test_photographs_and_masks_are_found_in_imgs_and_masks(tmp_path, mask_name):
    photo, mask = draw(np.random.default_rng(0))
    for folder in ("imgs", "masks"):
        (tmp_path / folder).mkdir()
    photo.save(tmp_path / "imgs" / "a.jpg")
    mask.save(tmp_path / "masks" / mask_name)
    assert [pair[:2] for pair in find_pairs(tmp_path)] == [
        (tmp_path / "imgs" / "a.jpg", tmp_path / "masks" / mask_name)
    ]


def test_the_folder_that_kaggles_train_hq_zip_makes_is_found_as_it_is(own_data):
    (own_data / "train").rename(own_data / "train_hq")
    assert len(find_pairs(own_data)) == 3


def test_what_a_system_leaves_in_a_folder_is_no_photograph(own_data):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._ca0000000000_01.png", "._IMG_1.HEIC"):
        (own_data / "train" / name).write_bytes(b"x")
        (own_data / "train_masks" / name).write_bytes(b"x")
    assert len(find_pairs(own_data)) == 3


def test_a_missing_folder_is_told_with_where_carvana_is_to_be_had(tmp_path):
    with pytest.raises(ValueError, match="no photographs in .*carvana: .*https://www.kaggle.com/c/carvana"):
        find_pairs(tmp_path / "carvana")


def test_photographs_without_a_folder_of_masks_are_refused(tmp_path):
    (tmp_path / "imgs").mkdir()
    with pytest.raises(ValueError, match="imgs has no masks: there should be a folder .*masks"):
        find_pairs(tmp_path)


def test_empty_folders_are_refused(tmp_path):
    for folder in ("imgs", "masks"):
        (tmp_path / folder).mkdir()
    with pytest.raises(ValueError, match="no photographs in .*imgs"):
        find_pairs(tmp_path)


def no_photograph(data: Path) -> None:
    (data / "train" / "ca0000000001_01.png").unlink()


def other_size(data: Path) -> None:
    Image.new("L", (90, 64)).save(data / "train_masks" / "ca0000000001_01_mask.gif")


def truncated_photograph(data: Path) -> None:
    photo = data / "train" / "ca0000000001_01.png"
    photo.write_bytes(photo.read_bytes()[:5000])


def truncated_mask(data: Path) -> None:
    mask = data / "train_masks" / "ca0000000001_01_mask.gif"
    mask.write_bytes(mask.read_bytes()[:-100])


def text_as_mask(data: Path) -> None:
    (data / "train_masks" / "ca0000000001_01_mask.gif").write_text("no picture")


def two_masks(data: Path) -> None:
    Image.new("L", (96, 64)).save(data / "train_masks" / "ca0000000001_01_mask.png")


def phone_photograph(data: Path) -> None:
    (data / "train" / "ca0000000001_01.png").rename(data / "train" / "ca0000000001_01.heic")
    (data / "train" / "ca0000000001_01.heic").write_bytes(b"\0\0\0\x18ftypheic")


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (no_mask, "ca0000000001_01.png: no mask in .*train_masks"),
        (no_photograph, "ca0000000001_01_mask.gif: no photograph in .*train"),
        (other_size, "ca0000000001_01.png: 96x64 pixels, but its mask has 90x64"),
        (truncated_photograph, "ca0000000001_01.png: cannot read .*ca0000000001_01.png"),
        (truncated_mask, "ca0000000001_01.png: cannot read its mask .*ca0000000001_01_mask.gif"),
        (text_as_mask, "ca0000000001_01.png: its mask .*ca0000000001_01_mask.gif is not a picture"),
        (two_masks, "ca0000000001_01_mask.png: a second picture beside .*ca0000000001_01_mask.gif"),
        (phone_photograph, "ca0000000001_01.heic: .*ca0000000001_01.heic is a HEIC picture, .* as JPEG or PNG first"),
    ],
)
def test_a_pair_that_cannot_be_used_is_named_with_its_fault(own_data, damage, fault):
    damage(own_data)
    with pytest.raises(ValueError, match=f"^1 fault in the pictures in .*\n  {fault}[^\n]*$"):
        find_pairs(own_data)


def test_all_faults_are_told_at_once(own_data):
    (own_data / "train_masks" / "ca0000000000_01_mask.gif").unlink()
    other_size(own_data)
    (own_data / "train" / "ca0000000002_01.png").write_text("no picture")
    with pytest.raises(ValueError) as faults:
        find_pairs(own_data)
    assert re.findall(r"\n  (\w+)\.png:", str(faults.value)) == [
        "ca0000000000_01",
        "ca0000000001_01",
        "ca0000000002_01",
    ]


def test_a_photograph_that_lies_on_its_side_is_turned_before_its_mask_is_compared(own_data):
    photo = own_data / "train" / "ca0000000001_01.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(photo).transpose(Image.Transpose.ROTATE_90).save(photo, exif=exif)
    assert len(find_pairs(own_data)) == 3


def test_a_grey_photograph_is_made_coloured(own_data):
    photo = own_data / "train" / "ca0000000001_01.png"
    Image.open(photo).convert("L").save(photo)
    assert load_sample(find_pairs(own_data)[1], 32, 48).shape == (4, 32, 48)


# Which files are pictures


def tiff(pixels: np.ndarray, tags: dict[int, int] | None = None, mark: bytes = b"") -> bytes:
    """A grey TIFF of `pixels` [H, W], integers of any width, with more `tags`; `mark` stands before the tags."""
    height, width = pixels.shape
    start = 8 + len(mark)
    tags = {256: width, 257: height, 258: 8 * pixels.itemsize, 259: 1, 262: 1, 273: 0, 277: 1, 278: height,
            279: pixels.nbytes, 339: 1 if pixels.dtype.kind == "u" else 2, **(tags or {})}  # fmt: skip
    tags[273] = start + 2 + 12 * len(tags) + 4
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return (
        b"II*\0" + struct.pack("<I", start) + mark + struct.pack("<H", len(tags)) + table + bytes(4) + pixels.tobytes()
    )


GREY = np.full((8, 8), 200, np.uint8)


@pytest.mark.parametrize("name", ["a.JPG", "a.mpo", "a.HEIC", "a.heif", "a.jxl", "a.psd", "a.avif", "a.dng", "a.CR2"])
def test_what_a_user_calls_a_picture_is_one_even_if_it_cannot_be_read(name):
    assert is_picture(Path(name))


@pytest.mark.parametrize("name", ["Thumbs.db", ".DS_Store", "desktop.ini", "._a.jpg", "._a.heic", "a.txt", "a", "heic"])
def test_what_is_no_picture_is_none(name):
    assert not is_picture(Path(name))


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic", "a HEIC picture"),
        ("from a phone.jpg", b"\0\0\0\x18ftypheic", "a HEIC picture"),
        ("from a phone.jpg", b"\0\0\0\x18ftypmif1", "a HEIC picture"),
        ("a.jxl", b"\xff\x0a\0", "a JPEG XL picture"),
        ("a.jpg", b"\xff\x0a\0", "a JPEG XL picture"),
        ("a.jpg", b"\0\0\0\x0cJXL \r\n", "a JPEG XL picture"),
        ("a.psd", b"8BPS\0\x01", "a Photoshop file"),
        ("a.CR3", b"\0\0\0\x18ftypcrx ", "a camera's raw file"),
        ("a.raf", b"FUJIFILMCCD-RAW ", "a camera's raw file"),
        ("a.ORF", b"IIRO\x08\0", "a camera's raw file"),
    ],
)
def test_a_picture_that_pillow_does_not_read_is_refused_by_its_kind(tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        ValueError, match=f"{name} is {kind}, which Pillow does not read: save it as JPEG or PNG first$"
    ):
        open_photograph(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "tags", "mark"),
    [
        ("a.dng", {}, b""),
        ("a.NEF", {}, b""),
        ("a.tif", {50706: 0x401}, b""),
        ("a.jpg", {50706: 0x401}, b""),
        ("a.tif", {254: 1}, b""),
        ("a.jpg", {}, b"CR\2\0\0\0\0\0"),
    ],
    ids=["DNG", "Nikon", "DNG called .tif", "DNG called .jpg", "thumbnail first, called .tif", "Canon called .jpg"],
)
def test_a_raw_file_is_not_taken_for_its_thumbnail(tmp_path, name, tags, mark):
    (tmp_path / name).write_bytes(tiff(GREY, tags, mark))
    assert Image.open(tmp_path / name).size == (8, 8)
    with pytest.raises(ValueError, match=f"{name} is a camera's raw file, which Pillow does not read: save it as JPEG"):
        open_photograph(tmp_path / name)


@pytest.mark.parametrize("tags", [{}, {254: 0}, {254: 2}])
def test_a_tiff_is_a_picture(tmp_path, tags):
    (tmp_path / "a.tif").write_bytes(tiff(GREY, tags))
    assert open_photograph(tmp_path / "a.tif").getpixel((0, 0)) == (200, 200, 200)


@pytest.mark.parametrize("name", ["a.heic", "a.dng", "a.jxl"])
def test_a_jpeg_is_read_whatever_its_name_is(tmp_path, name):
    Image.new("L", (8, 8), 200).save(tmp_path / name, "JPEG")
    assert open_photograph(tmp_path / name).getpixel((0, 0)) == (200, 200, 200)


@pytest.mark.parametrize("name", ["stereo.mpo", "stereo.jpg"])
def test_of_two_pictures_in_one_jpeg_the_first_is_read(tmp_path, name):
    first, second = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8))
    first.save(tmp_path / name, "MPO", save_all=True, append_images=[second])
    assert open_photograph(tmp_path / name).getpixel((0, 0)) == (255, 255, 255)


# Masks

CAR = np.zeros((24, 36), dtype=bool)
CAR[6:18, 9:27] = True


def of(ground: float, car: float, dtype: type = np.uint8) -> Image.Image:
    """The mask of a rectangle, 24 x 36 pixels, in these two values."""
    return Image.fromarray(np.where(CAR, car, ground).astype(dtype))


def coloured(ground: tuple[int, ...], car: tuple[int, ...]) -> Image.Image:
    return Image.fromarray(np.where(CAR[..., None], car, ground).astype(np.uint8))


def indexed(entries: dict[int, tuple[int, int, int]], ground: int, car: int) -> Image.Image:
    image = of(ground, car).convert("L")
    palette = Image.frombytes("P", image.size, image.tobytes())
    palette.putpalette(sum((entries.get(index, (9, 9, 9)) for index in range(max(entries) + 1)), ()))
    return palette


def soft_floats() -> Image.Image:
    values = np.where(CAR, 0.1, 0.05).astype(np.float32)
    values[6:18, [8, 27]] = 0.06
    return Image.fromarray(values)


def masks_of_every_kind() -> dict[str, Image.Image]:
    entries = {3: (0, 0, 0), 4: (128, 0, 0)}
    return {
        "of 0 and 255.png": of(0, 255),
        "of 0 and 1.png": of(0, 1),
        "of 100 and 101.png": of(100, 101),
        "of bits.png": Image.fromarray(CAR),
        "of bits.gif": Image.fromarray(CAR),
        "of bits.tif": Image.fromarray(CAR),
        "of bits.bmp": Image.fromarray(CAR),
        "of 16 bits.png": of(0, 65535, np.uint16),
        "of 16 bits, 0 and 300.png": of(0, 300, np.uint16),
        "of 16 bits, 300 and 65535.tif": of(300, 65535, np.uint16),
        "of 16 bits, 256 and 512.tif": of(256, 512, np.uint16),
        "of 16 bits, big end first.tif": Image.frombytes(
            "I;16B", (36, 24), np.where(CAR, 512, 256).astype(">u2").tobytes()
        ),
        "of 32 bits.tif": of(70000, 70001, np.int32),
        "of 32 bits with a sign.tif": of(-1, 1, np.int32),
        "of floats, 0 and 1.tif": of(0, 1, np.float32),
        "of floats, 0.05 and 0.95.tif": of(0.05, 0.95, np.float32),
        "of floats with a soft edge.tif": soft_floats(),
        "of palette entries.png": indexed(entries, 3, 4),
        "of palette entries.gif": indexed(entries, 3, 4),
        "of a palette from bright to dark.png": indexed({0: (255, 255, 255), 1: (0, 0, 0)}, 1, 0),
        "of colours.png": coloured((0, 0, 0), (200, 30, 90)),
        "of colours of one luminance.png": coloured((100, 100, 200), (99, 131, 43)),
        "of cyan, magenta, yellow and black.tif": coloured((0, 0, 0), (200, 200, 200)).convert("CMYK"),
        "of greys and alpha.png": of(0, 255).convert("LA"),
        "of colours and alpha.png": coloured((0, 0, 0), (200, 30, 90)).convert("RGBA"),
        "of palette entries and alpha.tif": of(0, 255).convert("PA"),
        "of soft edges.jpg": of(0, 255),
        "of soft edges.webp": of(0, 255),
        "of soft edges.jp2": of(0, 255),
        "of few grey levels.png": of(0, 255).resize((144, 96), Image.Resampling.BILINEAR).resize((36, 24), 5),
    }


@pytest.mark.parametrize("name", masks_of_every_kind())
def test_a_mask_may_be(name, tmp_path):
    masks_of_every_kind()[name].save(tmp_path / name)
    assert np.array_equal(read_mask(tmp_path / name), CAR)


def test_the_highest_value_of_32_bits_is_bright(tmp_path):
    """Pillow reads it as -1."""
    (tmp_path / "mask.tif").write_bytes(tiff(np.where(CAR, 2**32 - 1, 0).astype(np.uint32)))
    assert np.array_equal(read_mask(tmp_path / "mask.tif"), CAR)


@pytest.mark.parametrize(("value", "car"), [(0, False), (255, True)])
def test_a_mask_of_one_value_is_all_car_unless_it_is_black(tmp_path, value, car):
    Image.new("L", (6, 4), value).save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png") == car).all()


@pytest.mark.parametrize("half", [99.5, 0.5, 254.5])
def test_the_half_that_is_given_says_what_is_car(tmp_path, half):
    of(100, 200).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png", half), np.full(CAR.shape, half < 100))


def ellipse(short: int = 96) -> Image.Image:
    """A mask as large as needed for what happens to real ones."""
    return draw(np.random.default_rng(1), short * 3 // 2, short)[1].convert("L")


def saved(image: Image.Image, kind: str, **options) -> Image.Image:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return Image.open(content)


def softened(mask: Image.Image) -> dict[str, Image.Image]:
    """What JPEG, blur and resizing make of a mask of 0 and 255."""
    small, sizes = mask.resize((72, 48), Image.Resampling.BILINEAR), {"smaller": 0.7, "larger": 2.3}
    filters = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
    dim, floats = mask.point(lambda value: value // 2), mask.convert("F")
    return {
        **{f"JPEG {quality}.jpg": saved(mask, "JPEG", quality=quality) for quality in (10, 50, 75, 95, 100)},
        **{f"small JPEG {quality}.jpg": saved(small, "JPEG", quality=quality) for quality in (10, 50, 75, 95, 100)},
        **{f"WebP {quality}.webp": saved(mask, "WEBP", quality=quality) for quality in (10, 80)},
        **{f"JPEG as PNG {quality}.png": saved(mask, "JPEG", quality=quality) for quality in (10, 50, 75)},
        **{f"blur {radius}.png": mask.filter(ImageFilter.GaussianBlur(radius)) for radius in (1, 2, 3, 5)},
        **{f"box {radius}.png": mask.filter(ImageFilter.BoxBlur(radius)) for radius in (1, 2, 3, 5)},
        **{
            f"{name} by {method.name}, {kind}.tif": image.resize(
                (round(mask.width * size), round(mask.height * size)), method
            )
            for name, size in sizes.items()
            for method in filters
            for kind, image in {"white": mask, "grey": dim, "floats": floats}.items()
        },
    }


@pytest.mark.parametrize("name", softened(ellipse()))
def test_the_edges_of_a_mask_may_be_soft(tmp_path, name):
    image = softened(ellipse())[name]
    image.save(tmp_path / name, **({"quality": "keep"} if name.endswith("jpg") else {}))
    car = np.asarray(ellipse().resize(image.size, Image.Resampling.NEAREST)) > 0
    assert np.mean(read_mask(tmp_path / name) != car) < 0.02


@pytest.mark.skipif(not REAL.is_dir(), reason="no real masks in ../shared/data/carvana_full")
@pytest.mark.parametrize("number", [0, 20])
def test_real_masks_may_be_soft(tmp_path, number):
    with Image.open(sorted(REAL.iterdir())[number]) as image:
        mask = image.convert("L").resize((432, 288), Image.Resampling.NEAREST)
    for name, soft in softened(mask).items():
        soft.save(tmp_path / name)
        assert np.mean(read_mask(tmp_path / name) != (np.asarray(mask.resize(soft.size, 0)) > 0)) < 0.02, name


def test_a_mask_may_be_tiny_and_a_jpeg(tmp_path):
    """Its ringing is nearly everywhere."""
    car = np.zeros((8, 8), bool)
    car[2:7, 1:6] = True
    Image.fromarray(car).convert("L").save(tmp_path / "mask.jpg", quality=50)
    assert np.array_equal(read_mask(tmp_path / "mask.jpg"), car)


def void(values: tuple[int, int, int], width: int) -> Image.Image:
    """Ground, car, and an outline of `width` pixels around it, in these values."""
    ground, car, outline = values
    image = Image.new("L", (144, 96), ground)
    ImageDraw.Draw(image).ellipse((30, 20, 110, 80), fill=car, outline=outline, width=width)
    return image


def photograph() -> Image.Image:
    """Smooth areas of many shades with sharp edges between."""
    shade = np.add.outer(np.linspace(0, 120, 96), np.linspace(0, 60, 144))
    return Image.fromarray((shade + 75 * (np.asarray(ellipse()) > 0)).astype(np.uint8))


def matte() -> Image.Image:
    """A car with a window that half of the light goes through."""
    image = ellipse()
    ImageDraw.Draw(image).rectangle((60, 35, 85, 50), fill=120)
    return image.filter(ImageFilter.GaussianBlur(1))


@pytest.mark.parametrize(
    ("image", "values"),
    [
        *((void((0, 1, 255), width), "0, 1 and 255") for width in (1, 2, 3, 5, 12)),
        *((void((2, 1, 3), width), "1, 2 and 3") for width in (3, 5, 12)),
        *((void((0, 255, 128), width), "0, 128 and 255") for width in (3, 5, 12)),
        (void((0, 2, 1), 12), "0, 1 and 2"),
        (Image.fromarray(np.asarray(void((0, 100, 255), 3)).astype(np.uint16) * 257), "0, 25700 and 65535"),
        (
            Image.merge("RGB", [void((0, 0, 224), 3), void((0, 128, 224), 3), void((0, 0, 192), 3)]),
            "0, 75.1364 and 220.[0-9]*",
        ),
        (photograph(), "0, many between and 2.."),
        (matte(), "0, many between and 255"),
        (Image.effect_noise((144, 96), 60), r"\d+, many between and \d+"),
    ],
)
def test_a_mask_of_more_than_two_levels_is_refused_with_its_values(tmp_path, image, values):
    image.save(tmp_path / "mask.png")
    with pytest.raises(
        ValueError, match=f"its mask .*mask.png has more than two values, {values}: a mask is black, and"
    ):
        read_mask(tmp_path / "mask.png")


def test_a_void_of_a_palette_is_refused(tmp_path):
    """As in Pascal VOC, whose cars have the index 7, and whose void has 255."""
    image = void((0, 7, 255), 3)
    palette = Image.frombytes("P", image.size, image.tobytes())
    palette.putpalette(
        sum(({7: (128, 128, 128), 255: (224, 224, 192)}.get(index, (0, 0, 0)) for index in range(256)), ())
    )
    palette.save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"more than two values, 0, 128 and 220\.352:"):
        read_mask(tmp_path / "mask.png")


def test_a_trimap_as_a_jpeg_is_refused(tmp_path):
    void((85, 0, 255), 12).save(tmp_path / "mask.jpg", quality=90)
    with pytest.raises(ValueError, match="more than two values, 0, many between and 255:"):
        read_mask(tmp_path / "mask.jpg")


def test_a_thin_void_above_the_car_is_refused_even_in_a_jpeg(tmp_path):
    void((0, 128, 255), 2).save(tmp_path / "mask.jpg", quality=90)
    with pytest.raises(ValueError, match="more than two values, 0, many between and 255:"):
        read_mask(tmp_path / "mask.jpg")


def test_a_mask_of_fewer_than_3_pixels_has_its_edges_where_it_can(tmp_path):
    Image.fromarray(np.array([[0, 100, 255]], np.uint8)).save(tmp_path / "mask.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_mask(tmp_path / "mask.png").tolist() == [[False, False, True]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_mask_with_a_value_that_is_no_number_is_refused(tmp_path, value):
    values = np.asarray(of(0, 1, np.float32)).copy()
    values[0, 0] = value
    Image.fromarray(values).save(tmp_path / "mask.tif")
    with pytest.raises(ValueError, match="its mask .*mask.tif has values that are no numbers: "):
        read_mask(tmp_path / "mask.tif")


def test_a_mask_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    of(0, 255).save(tmp_path / "mask.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(ValueError, match="its mask .*mask.png has more than 0 million pixels"):
        read_mask(tmp_path / "mask.png")


# Masks with transparency

CLEAR_BLACK, CLEAR_WHITE, BLACK, WHITE = (0, 0, 0, 0), (255, 255, 255, 0), (0, 0, 0, 255), (255, 255, 255, 255)


def cut_out() -> Image.Image:
    """A photograph of which only the car is to be seen."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 36, 3)).astype(np.uint8)).convert("RGBA")
    image.putalpha(Image.fromarray(CAR))
    return image


def by_palette() -> Image.Image:
    image = indexed({0: (90, 90, 90), 1: (90, 90, 90)}, 0, 1)
    image.info["transparency"] = 0
    return image


def cut_outs() -> dict[str, Image.Image]:
    painted = coloured(CLEAR_BLACK, BLACK)
    painted.paste(CLEAR_WHITE, (0, 0, 8, 6))  # an eraser makes clear what was painted, and leaves its colour
    return {
        "white on nothing.png": coloured(CLEAR_BLACK, WHITE),
        "white on clear white.png": coloured(CLEAR_WHITE, WHITE),
        "black on nothing.png": coloured(CLEAR_BLACK, BLACK),
        "black on nothing, partly erased.png": painted,
        "black on nothing.webp": coloured(CLEAR_BLACK, BLACK),
        "red on nothing.tif": coloured(CLEAR_BLACK, (200, 0, 0, 255)),
        "grey on nothing.png": coloured(CLEAR_BLACK, (90, 90, 90, 255)).convert("LA"),
        "a photograph.png": cut_out(),
        "a photograph.webp": cut_out(),
        "half clear.png": coloured((0, 0, 0, 128), WHITE),
        "white, and hardly clear at all.png": coloured(BLACK, (255, 255, 255, 254)),
        "of a palette.png": by_palette(),
        "of a palette.gif": by_palette(),
        "with soft edges.png": coloured(CLEAR_BLACK, WHITE).filter(ImageFilter.GaussianBlur(1)),
        "black and white, none to be seen.png": coloured(CLEAR_BLACK, CLEAR_WHITE),
    }


@pytest.mark.parametrize("name", cut_outs())
def test_a_cut_out_is_a_mask(tmp_path, name):
    cut_outs()[name].save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    assert np.mean(read_mask(tmp_path / name) != CAR) < 0.005  # blur rounds corners


def framed() -> Image.Image:
    """Black and white, with clear corners, as if it had been turned."""
    image = coloured(BLACK, WHITE)
    image.paste((128, 128, 128, 0), (0, 0, 4, 24))
    return image


@pytest.mark.parametrize(
    "image",
    [
        coloured(CLEAR_WHITE, BLACK),
        coloured(BLACK, (255, 255, 255, 128)),
        coloured(BLACK, CLEAR_WHITE),
        framed(),
    ],
    ids=[
        "black on clear white",
        "half clear white on black",
        "white hole in black",
        "black and white in a clear frame",
    ],
)
def test_a_mask_whose_colours_and_opacity_disagree_is_refused(tmp_path, image):
    image.save(tmp_path / "mask.png")
    with pytest.raises(
        ValueError, match="its mask .*mask.png says one thing by its colours and another by its opacity: "
    ):
        read_mask(tmp_path / "mask.png")


def test_a_picture_of_which_nothing_is_to_be_seen_shows_no_car(tmp_path):
    Image.new("RGBA", (8, 8), CLEAR_WHITE).save(tmp_path / "mask.png")
    assert not read_mask(tmp_path / "mask.png").any()


# Masks of a set


def set_of(folder: Path, *masks: Image.Image, ending: str = "png") -> Path:
    """A folder with photographs a, b, c ... and these masks."""
    for name in ("imgs", "masks"):
        (folder / name).mkdir(parents=True)
    for name, mask in zip("abcdefgh", masks, strict=False):
        Image.new("RGB", mask.size).save(folder / "imgs" / f"{name}.png")
        mask.save(folder / "masks" / f"{name}.{ending}")
    return folder


def read_all(folder: Path) -> list[np.ndarray]:
    return [read_mask(pair.mask, pair.half) for pair in find_pairs(folder)]


def faults_of(folder: Path) -> list[str]:
    with pytest.raises(ValueError) as error:
        find_pairs(folder)
    return str(error.value).splitlines()[1:]


def test_what_is_seen_in_the_masks_is_kept_with_the_pairs(tmp_path):
    pairs = find_pairs(set_of(tmp_path, of(0, 200), of(0, 0), of(200, 200)))
    assert [(pair.half, pair.share) for pair in pairs] == [(100, 0.25), (100, 0), (100, 1)]


def test_masks_that_were_not_looked_at_have_neither_half_nor_share(data):
    assert [pair[2:] for pair in find_pairs(data, check=False)] == [(None, None)] * 12


def test_how_much_is_car_is_the_end_of_a_sentence(tmp_path):
    pairs = find_pairs(set_of(tmp_path, of(0, 200), of(0, 0), of(200, 200), of(0, 200)))
    assert how_shared(pairs) == "car on 37.5% of a picture (0.0% to 100.0%)"


@pytest.mark.parametrize("mask", [of(1, 1), of(0, 0), of(0, 1)], ids=["full", "empty", "both"])
def test_a_value_means_the_same_in_every_mask_of_a_set(tmp_path, mask):
    """A mask of nothing but 1 is all car where others have 0 and 1, and none where others have 1 and 2."""
    assert np.array_equal(read_all(set_of(tmp_path / "a", of(0, 1), mask))[1], np.asarray(mask) == 1)
    other = mask.point(lambda value: value + 1)
    assert np.array_equal(read_all(set_of(tmp_path / "b", of(1, 2), other))[1], np.asarray(mask) == 1)


@pytest.mark.parametrize(
    ("masks", "fault"),
    [
        ([of(0, 255), of(0, 1), of(0, 255)], "0 and 1, but most have brightness 0 and 255"),
        ([of(0, 1), of(0, 2), of(0, 1)], "0 and 2, but most have brightness 0 and 1"),
        ([of(0, 255), of(1, 1), of(0, 0)], "1 throughout, but most have brightness 0 and 255"),
        ([of(0, 255), of(254, 254), of(255, 255)], "254 throughout, but most have brightness 0 and 255"),
        ([of(1, 2), of(0, 0), of(2, 2)], "0 throughout, but most have brightness 1 and 2"),
        ([of(0, 0), of(7, 7), of(255, 255)], "7 throughout, but most have brightness 0 and 255"),
        ([of(0, 255), of(128, 255), of(0, 255)], "128 and 255, but most have brightness 0 and 255"),
    ],
)
def test_a_mask_with_other_values_than_most_is_named_with_them(tmp_path, masks, fault):
    (line,) = faults_of(set_of(tmp_path, *masks))
    assert line == f"  b.png: its mask {tmp_path / 'masks' / 'b.png'} has brightness {fault}: give all the same two"


def test_a_class_that_some_masks_have_is_told_of_those(tmp_path):
    masks = [of(0, 1), void((0, 1, 2), 5).resize((36, 24), Image.Resampling.NEAREST), of(0, 1)]
    (line,) = faults_of(set_of(tmp_path, *masks))
    assert line.startswith("  b.png: its mask ") and "has more than two values, 0, 1 and 2: " in line


def test_a_jpeg_of_one_level_may_waver(tmp_path):
    folder = set_of(tmp_path, of(0, 255), of(3, 3), of(250, 250), ending="jpg")
    assert [mask.mean() for mask in read_all(folder)] == [0.25, 0, 1]


def test_cut_outs_and_black_and_white_masks_do_not_mix(tmp_path):
    (line,) = faults_of(set_of(tmp_path, coloured(CLEAR_BLACK, BLACK), of(0, 255), coloured(CLEAR_BLACK, BLACK)))
    assert line.startswith("  b.png: ") and "has brightness 0 and 255, but most have opacity 0 and 255: " in line


def test_a_cut_out_that_nothing_is_cut_out_of_is_refused(tmp_path):
    """Its black would be read as no car, though it is all car."""
    (line,) = faults_of(set_of(tmp_path, coloured(CLEAR_BLACK, BLACK), coloured(BLACK, BLACK)))
    assert line.startswith("  b.png: ") and "has brightness 0 throughout, but most have opacity 0 and 255: " in line


def test_a_cut_out_without_a_car_is_empty(tmp_path):
    masks = [coloured(CLEAR_BLACK, BLACK), coloured(CLEAR_BLACK, CLEAR_BLACK)]
    assert [mask.mean() for mask in read_all(set_of(tmp_path, *masks))] == [0.25, 0]


@pytest.mark.parametrize(("mask", "said"), [(of(0, 0), "empty, 0"), (of(255, 255), "full, 255"), (of(1, 1), "full, 1")])
def test_masks_that_are_all_empty_or_all_full_are_refused(tmp_path, mask, said):
    folder = set_of(tmp_path, mask, mask)
    with pytest.raises(
        ValueError, match=f"^every mask in .*masks is {said} throughout: a mask is black, and white on "
    ):
        find_pairs(folder)


def test_a_sample_has_the_mask_that_the_set_says(tmp_path):
    pairs = find_pairs(set_of(tmp_path, of(1, 2), of(1, 1)))
    assert [load_sample(pair, 32, 48)[3].float().mean().item() for pair in pairs] == pytest.approx([0.25, 0], abs=0.02)


# The split


def test_a_cameras_photographs_are_split_one_by_one():
    pairs = [Pair(Path(f"IMG_{number:04}.jpg"), Path(f"IMG_{number:04}_mask.gif")) for number in range(12)]
    assert [len(part) for part in split_by_car(pairs, 3, seed=0)] == [6, 3, 3]


@pytest.mark.parametrize(
    ("name", "car"),
    [
        ("0cdf5b5d0ce1_01.jpg", "0cdf5b5d0ce1"),
        ("0cdf5b5d0ce1_1.jpg", "0cdf5b5d0ce1_1"),
        ("my_car_12.jpg", "my_car_12"),
        ("IMG_0001.jpg", "IMG_0001"),
        ("20240101_120000.jpg", "20240101_120000"),
        ("garage.jpg", "garage"),
    ],
)
def test_a_photographs_name_says_which_car_it_shows(name, car):
    assert car_of(Pair(Path(name), Path("mask.gif"))) == car


def test_no_car_is_in_two_parts_of_the_split(data):
    cars = [{car_of(pair) for pair in part} for part in split_by_car(find_pairs(data), 2, seed=0)]
    assert [len(part) for part in cars] == [2, 2, 2]
    assert len(set.union(*cars)) == 6


def test_the_split_leaves_no_photograph_out(data):
    pairs = find_pairs(data)
    assert sorted(sum(split_by_car(pairs, 1, seed=0), [])) == pairs


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_the_photographs(data):
    pairs = find_pairs(data)
    splits = [split_by_car(order, 2, seed=4) for order in (pairs, pairs[::-1])]
    assert [list(map(sorted, parts)) for parts in splits] == [list(splits[0])] * 2


def test_another_seed_keeps_other_cars_out(data):
    pairs = find_pairs(data)
    assert len({str(split_by_car(pairs, 2, seed)) for seed in range(5)}) > 1


def test_too_few_cars_are_refused(data):
    with pytest.raises(ValueError, match="keeping 2 x 3 cars out leaves none of the 6 .*: choose a smaller --val-cars"):
        split_by_car(find_pairs(data), 3, seed=0)


def test_photographs_are_known_by_the_names_that_runs_have_kept(data):
    """Another text for the same names, and no run that was begun before could go on."""
    assert fingerprint(find_pairs(data)) == "12 with checksum 38fa9e1d"
    assert fingerprint([(Path("Auto vor dem Café.jpg"), 0)]) == "1 with checksum 99df908b"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes for a name")
def test_photographs_are_known_by_names_that_are_no_utf_8():
    names = [os.fsdecode(f"{text}.jpg".encode("gbk")) for text in ("汽车", "轿车")]
    marks = {fingerprint([Pair(Path(name), Path("mask.gif"))]) for name in names}
    assert len(marks) == 2


# Samples


@pytest.mark.parametrize("cache_bytes", [carvana.CACHE_BYTES, 0], ids=["held in memory", "read anew"])
def test_a_sample_depends_on_seed_epoch_and_index_and_not_on_the_workers(data, monkeypatch, cache_bytes):
    monkeypatch.setattr(carvana, "CACHE_BYTES", cache_bytes)
    dataset = CarDataset(find_pairs(data), 32, 48, seed=5)
    dataset.epoch = 3
    order = [7, 0, 3, 11, 4]
    alone = [dataset[index] for index in sorted(order)]
    torch.manual_seed(99)
    loaded = list(DataLoader(dataset, batch_sampler=[[index] for index in order], num_workers=2))
    for index, (images, masks) in zip(order, loaded, strict=True):
        image, mask = alone[sorted(order).index(index)]
        assert torch.equal(images[0], image) and torch.equal(masks[0], mask)


@pytest.mark.parametrize(("seed", "epoch"), [(5, 4), (6, 3)])
def test_another_epoch_or_seed_varies_a_sample_otherwise(data, seed, epoch):
    images = []
    for pair in ((5, 3), (seed, epoch)):
        dataset = CarDataset(find_pairs(data)[:1], 32, 48, pair[0])
        dataset.epoch = pair[1]
        images.append(dataset[0][0])
    assert not torch.equal(*images)


def test_an_image_lies_in_0_to_1_and_its_mask_is_0_or_1(data):
    dataset = CarDataset(find_pairs(data), 32, 48, seed=0)
    for image, mask in (dataset[index] for index in range(len(dataset))):
        assert image.shape == (3, 32, 48) and image.min() >= 0 and image.max() <= 1
        assert mask.shape == (1, 32, 48) and set(mask.unique().tolist()) == {0, 1}


def test_image_and_mask_are_mirrored_and_scaled_together():
    """A white car on black: whatever is done to the picture, the car stays where the mask says."""
    _, mask = draw(np.random.default_rng(1))
    mask = torch.from_numpy(np.asarray(mask).astype(np.uint8))[None]
    sample = torch.cat([mask * 200, mask * 200, mask * 200, mask])
    moved = 0
    for index in range(40):
        image, varied = augment(sample, epoch_generator(0, 1, index)).split([3, 1])
        wrong = ((image.float().mean(dim=0) > 90) != varied[0].bool()).sum()
        assert wrong <= 0.01 * varied.numel()  # an edge's pixels are half car
        moved += not torch.equal(varied, mask)
    assert moved > 20


def test_samples_are_mirrored_scaled_and_lit():
    _, mask = draw(np.random.default_rng(1))
    mask = torch.from_numpy(np.asarray(mask).astype(np.uint8))[None]
    sample = torch.cat([mask * 200, mask * 200, mask * 200, mask])
    varied = [augment(sample, epoch_generator(0, 1, index)) for index in range(60)]
    mirrored = sum(torch.equal(one[3:], mask.flip(2)) for one in varied)
    larger = sum((one[3] > 0).sum() > 1.05 * (mask > 0).sum() for one in varied)
    assert 10 < mirrored < 40
    assert 5 < larger < 30
    assert len({one[0].max().item() for one in varied}) > 20


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_a_closer_cut_may_lie_anywhere(axis):
    """The mask holds each pixel's row or column instead, so that it says what was cut off before and after."""
    place = torch.arange(100, dtype=torch.uint8).expand(100, 100)
    sample = torch.stack([place if axis else place.T] * 4)
    varied = [augment(sample, epoch_generator(0, 1, index))[3] for index in range(80)]
    kept = [(cut[0, 0].item(), cut[-1, -1].item()) for cut in varied if cut[0, 0] < cut[-1, -1]]  # not mirrored
    assert any(first > 99 - last + 3 for first, last in kept)
    assert any(first < 99 - last - 3 for first, last in kept)


def test_photographs_are_trained_on_in_their_own_shape_in_multiples_of_16(data):
    assert shape_for(find_pairs(data), 48) == (48, 80)


def test_photographs_that_are_not_padded_are_trained_on_in_their_own_shape(data):
    assert shape_for(find_pairs(data), 47, pad=False) == (47, 71)
