"""The mask lies where the car is; every picture is taken, every failure is one line, and nothing is half written."""

import functools
import io
import os
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.figure
import numpy as np
import PIL
import pytest
import torch
from conftest import ended
from PIL import Image, ImageDraw

import infer_unet
from infer_unet import MAX_ASPECT, doubt, network_size, overlay, plot_img_and_mask, predict_mask
from pictures import open_photograph
from report.draw_car import draw_car
from training import pick_device
from unet import UNet, load_unet

SCRIPT = Path(__file__).parent.parent / "infer_unet.py"


def brightness_network(level: float = 0.5) -> UNet:
    """A U-Net whose score is the red channel's brightness less `level`: what is bright is its car.

    The red channel goes through the first level's contracting map, the second half of the last concatenation.
    """
    model = UNet(3, 1, base_channels=2).eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        model.down_conv1[0].weight[0, 0, 1, 1] = 1
        model.down_conv1[2].weight[0, 0, 1, 1] = 1
        model.up_conv4[0].weight[0, 2, 1, 1] = 1
        model.up_conv4[2].weight[0, 0, 1, 1] = 1
        model.final_conv.weight[0, 0] = 1
        model.final_conv.bias.fill_(-level)
    return model


def bright_box(width: int, height: int) -> tuple[Image.Image, np.ndarray]:
    """A black picture with a bright box off its centre, and the box's exact mask."""
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[height // 5 : height * 2 // 3, width // 8 : width // 2] = 1
    return Image.fromarray(mask * 255).convert("RGB"), mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `model.pth`, the network that copies brightness, and `car.png`, a bright box."""
    torch.save(brightness_network().state_dict(), tmp_path / "model.pth")
    bright_box(90, 60)[0].save(tmp_path / "car.png")
    return tmp_path


def main(monkeypatch, folder: Path, *arguments: object) -> str | int | None:
    """The command in this process: what it hands to `sys.exit`, or 0."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["infer_unet.py", *map(str, arguments), "--device", "cpu"])
    try:
        infer_unet.main()
    except SystemExit as end:
        return end.code
    return 0


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# Where the mask lies


@pytest.mark.parametrize(("width", "height"), [(572, 572), (857, 572), (572, 600), (573, 572), (572, 1001)])
def test_without_resizing_a_bright_box_comes_back_to_the_pixel(width, height):
    image, expected = bright_box(width, height)
    assert np.array_equal(predict_mask(brightness_network(), image), expected)


def test_every_pixel_of_noise_comes_back_to_its_place():
    expected = np.random.default_rng(0).integers(0, 2, (50, 61), dtype=np.uint8)
    image = Image.fromarray(expected * 255).convert("RGB")
    assert np.array_equal(predict_mask(brightness_network(), image, size=50), expected)


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (1918, 1280, 572),
        (1280, 1918, 572),
        (999, 701, 572),
        (401, 300, 572),
        (640, 427, 97),
        (1000, 999, 333),
        (900, 90, 64),
    ],
)
def test_after_resizing_the_box_is_where_it_was(width, height, size):
    image, expected = bright_box(width, height)
    mask = predict_mask(brightness_network(), image, size)
    assert (mask & expected).sum() / (mask | expected).sum() >= 0.99
    # No systematic shift: the centre stays, within a tenth of one of the network's pixels.
    network_pixel = max(
        1, max(width / network_size(width, height, size)[1], height / network_size(width, height, size)[0])
    )
    for found, true in zip(np.nonzero(mask), np.nonzero(expected), strict=True):
        assert abs(found.mean() - true.mean()) <= 0.1 * network_pixel


def test_the_padding_repeats_the_pictures_edge():
    model, inputs = brightness_network(), []
    model.register_forward_pre_hook(lambda _, given: inputs.extend(given))
    predict_mask(model, Image.new("RGB", (50, 35), "white"), size=35)
    assert inputs[0].shape == (1, 3, 48, 64) and (inputs[0] == 1).all()


@pytest.mark.parametrize("size", [571, 572, 573, 576, 583])
def test_a_car_that_fills_the_picture_reaches_all_four_edges(size):
    mask = predict_mask(brightness_network(), Image.new("RGB", (300, 200), "white"), size)
    assert mask.all()


@pytest.mark.parametrize(("width", "height"), [(572, 572), (859, 577), (35, 50), (64, 48)])
def test_without_padding_the_networks_output_lies_over_the_middle_and_the_rim_is_not_car(width, height):
    mask = predict_mask(brightness_network(), Image.new("RGB", (width, height), "white"), min(width, height), pad=False)
    rows, columns = height // 16 * 16, width // 16 * 16
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    expected = np.zeros((height, width), dtype=np.uint8)
    expected[top : top + rows, left : left + columns] = 1
    assert np.array_equal(mask, expected)


def test_without_padding_a_bright_box_comes_back_to_the_pixel():
    image, expected = bright_box(857, 572)
    assert np.array_equal(predict_mask(brightness_network(), image, pad=False), expected)


@pytest.mark.parametrize(("words", "shape"), [([], (48, 64)), (["--no-pad"], (35, 50))])
def test_no_pad_gives_the_network_the_picture_as_it_is(folder, monkeypatch, words, shape):
    inputs, load = [], infer_unet.load_unet

    def watched(*arguments) -> UNet:
        model = load(*arguments)
        model.register_forward_pre_hook(lambda _, given: inputs.extend(given))
        return model

    monkeypatch.setattr(infer_unet, "load_unet", watched)
    Image.new("RGB", (50, 35)).save(folder / "car.png")
    assert main(monkeypatch, folder, "car.png", "out.png", "--size", 35, *words) == 0
    assert inputs[0].shape[2:] == shape


def test_the_mask_is_an_array_of_zeros_and_ones_of_the_pictures_size():
    mask = predict_mask(brightness_network(), bright_box(90, 60)[0], size=64)
    assert mask.shape == (60, 90) and mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 1}


def test_the_threshold_is_a_probability():
    grey = Image.new("RGB", (32, 32), (128, 128, 128))
    model = brightness_network(level=128 / 255 - 1)  # a score of 1 everywhere: a probability of 0.731
    assert predict_mask(model, grey, 32, threshold=0.73).all()
    assert not predict_mask(model, grey, 32, threshold=0.74).any()


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        ((1918, 1280), (572, 857)),
        ((1280, 1918), (857, 572)),
        ((572, 572), (572, 572)),
        ((1, 1), (572, 572)),
        ((2000, 500), (572, 572 * MAX_ASPECT)),
        ((1, 50), (572 * MAX_ASPECT, 45)),
        ((20000, 30), (3, 572 * MAX_ASPECT)),
        ((1, 60000), (572 * MAX_ASPECT, 1)),
    ],
)
def test_the_networks_input_has_a_short_side_of_572_unless_the_picture_is_a_strip(picture, expected):
    assert network_size(*picture, 572) == expected


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 50), (50, 1), (20000, 30), (2, 3000)])
def test_a_picture_of_extreme_shape_gets_a_mask_of_its_own_size(width, height):
    mask = predict_mask(brightness_network(), Image.new("RGB", (width, height), "white"))
    assert mask.shape == (height, width) and mask.all()


# Every picture that Pillow can open

RAMP = np.tile(np.linspace(0, 1, 60), (40, 1))  # black on the left, white on the right


def ramp(mode: str) -> Image.Image:
    grey = Image.fromarray((RAMP * 255).round().astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray((RAMP * 65535).astype(np.uint16))
    if mode == "I;16B":
        return Image.frombytes("I;16B", grey.size, (RAMP * 65535).astype(">u2").tobytes())
    if mode == "I":
        return Image.fromarray((RAMP * 65535).astype(np.int32))
    if mode == "F":
        return Image.fromarray(RAMP.astype(np.float32))
    return grey if mode == "L" else grey.convert("RGB").convert(mode)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("rgb.jpg", "RGB"),
        ("rgb.png", "RGB"),
        ("rgb.webp", "RGB"),
        ("rgb.tiff", "RGB"),
        ("rgb.bmp", "RGB"),
        ("grey.jpg", "L"),
        ("grey.png", "L"),
        ("grey and alpha.png", "LA"),
        ("rgba.png", "RGBA"),
        ("cmyk.jpg", "CMYK"),
        ("cmyk.tiff", "CMYK"),
        pytest.param(
            *("ycbcr.tiff", "YCbCr"),
            marks=pytest.mark.skipif(
                int(PIL.__version__.split(".")[0]) < 13, reason="this Pillow cannot read what it writes"
            ),
        ),
        ("16 bit.png", "I;16"),
        ("16 bit.tiff", "I;16"),
        ("16 bit.pgm", "I"),
        ("16 bit, big end first.tiff", "I;16B"),
        ("32 bit.tiff", "I"),
        ("float.tiff", "F"),
    ],
)
def test_a_ramp_from_black_to_white_is_read_as_one(tmp_path, name, mode):
    ramp(mode).save(tmp_path / name)
    image = open_photograph(tmp_path / name)
    assert image.mode == "RGB" and image.size == (60, 40)
    assert np.abs(np.asarray(image).astype(float) - RAMP[:, :, None] * 255).max() <= 6


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_the_white_of_floating_point_pictures_is_guessed_from_their_values(tmp_path, white):
    Image.fromarray((RAMP * white * 0.9).astype(np.float32)).save(tmp_path / "float.tiff")
    assert np.asarray(open_photograph(tmp_path / "float.tiff"))[0, -1].tolist() == [230] * 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_no_number_leaves_the_others_as_they_are(tmp_path, value):
    values = RAMP.astype(np.float32)
    values[0, 0] = value
    Image.fromarray(values).save(tmp_path / "float.tiff")
    read = np.asarray(open_photograph(tmp_path / "float.tiff"))
    assert np.abs(read.astype(float) - RAMP[:, :, None] * 255).max() <= 1


def command_in(words: list[str]) -> None:
    """The command, for a process of its own."""
    sys.argv = ["infer_unet.py", *words, "--device", "cpu"]
    infer_unet.main()


def test_a_damaged_exif_does_not_matter(start, folder):
    """In a process of its own, for Pillow warns, and pytest has warnings its own way."""
    damaged = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"
    bright_box(40, 30)[0].save(folder / "photo.jpg", exif=damaged)
    process = start(folder, functools.partial(command_in, ["photo.jpg", "out.png", "--size", "32"]))
    assert ended(process, folder)[::2] == (0, "")
    assert Image.open(folder / "out.png").size == (40, 30)


def test_pictures_read_in_threads_leave_the_warnings_as_they_are_and_the_bombs_out(tmp_path):
    """`warnings.catch_warnings` in several threads at once restores what another thread has set."""
    bomb(tmp_path / "bomb.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    before, faults = list(warnings.filters), []

    def read(name: str) -> None:
        try:
            open_photograph(tmp_path / name)
        except ValueError as fault:
            faults.append(str(fault))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, ["photo.png", "bomb.png"] * 500))
    assert len(faults) == 500 and all("million pixels" in fault for fault in faults)
    assert warnings.filters == before


def test_a_file_that_would_start_another_program_is_not_opened(tmp_path, monkeypatch):
    """An EPS, whatever its name is, would be handed to Ghostscript."""
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.eps")
    (tmp_path / "photo.eps").rename(tmp_path / "photo.jpg")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("Ghostscript was started"))
    with pytest.raises(ValueError, match="photo.jpg is not a picture that Pillow can open safely"):
        open_photograph(tmp_path / "photo.jpg")


@pytest.mark.parametrize("name", ["palette.png", "palette.gif"])
def test_palette_pictures_keep_their_colours(tmp_path, name):
    image = Image.new("RGB", (40, 30), (200, 30, 60))
    image.quantize(8).save(tmp_path / name)
    assert open_photograph(tmp_path / name).getpixel((20, 15)) == (200, 30, 60)


def test_black_and_white_pictures_of_one_bit_are_read(tmp_path):
    Image.new("1", (40, 30), 1).save(tmp_path / "one.png")
    assert open_photograph(tmp_path / "one.png").getpixel((20, 15)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_what_is_transparent_is_white(tmp_path, mode):
    if mode.endswith("A"):
        Image.new(mode, (8, 8)).save(tmp_path / "clear.png")  # black, and hidden
    else:
        Image.new(mode, (8, 8)).save(tmp_path / "clear.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert open_photograph(tmp_path / "clear.png").getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed(tmp_path, orientation):
    upright = Image.new("RGB", (48, 32))
    ImageDraw.Draw(upright).rectangle((0, 0, 15, 15), fill="white")
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x112] = orientation
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    stored.save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(np.asarray(open_photograph(tmp_path / "photo.png")), np.asarray(upright))


@pytest.mark.parametrize("name", ["moving.gif", "moving.webp", "moving.png"])
def test_of_an_animated_picture_the_first_frame_is_taken(tmp_path, name):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("white", "black", "black")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=100)
    assert open_photograph(tmp_path / name).getpixel((10, 10)) == (255, 255, 255)


def test_a_wide_colour_profile_stays_with_the_picture_but_nothing_else_does(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg", icc_profile=b"a profile", comment=b"hello", dpi=(300, 300))
    assert open_photograph(tmp_path / "photo.jpg").info == {"icc_profile": b"a profile"}


def test_a_picture_of_8000_by_6000_pixels_is_done(folder, monkeypatch, capsys):
    Image.new("L", (8000, 6000), 255).save(folder / "large.png", compress_level=1)
    assert main(monkeypatch, folder, "large.png", "out.jpg", "--mask", "mask.png", "--size", 64) == 0
    assert Image.open(folder / "out.jpg").size == Image.open(folder / "mask.png").size == (8000, 6000)
    assert capsys.readouterr().out == "out.jpg: car on 100.0% of the picture\n"


# What can be no car


def test_a_box_as_large_as_a_car_in_the_middle_of_the_picture_is_not_doubted():
    assert doubt(bright_box(900, 600)[1]) is None
    assert doubt(bright_box(90, 60)[1]) is None


@pytest.mark.parametrize(
    ("boxes", "reason", "value"),
    [
        ([(0, 0, 0, 0)], "share", 1 / (300 * 200)),
        ([(20, 20, 269, 179)], "share", 250 * 160 / (300 * 200)),
        ([(0, 60, 149, 139)], None, 0),  # along 8% of the edge
        ([(0, 40, 99, 179)], "edge", 140 / 1000),
        ([(x, 60, x + 4, 139) for x in range(50, 250, 10)], "outline", 20 * 2 * (80 + 5) / (2 * (195 + 80))),
    ],
    ids=["empty", "too large", "touches the edge", "cut off", "stripes"],
)
def test_a_mask_is_doubted_with_the_number_that_says_why(boxes, reason, value):
    mask = Image.new("1", (300, 200))
    for box in boxes:
        ImageDraw.Draw(mask).rectangle(box, fill=1)
    found = doubt(np.asarray(mask, dtype=np.uint8))
    assert found is None if reason is None else found == (reason, pytest.approx(value, rel=0.01))


@pytest.fixture(scope="module")
def shipped_model() -> UNet:
    return load_unet(SCRIPT.parent / "model.pth", torch.device("cpu"))


@pytest.mark.parametrize("seed", [0, 4, 8])
def test_no_answer_to_a_drawn_car_is_doubted(shipped_model, seed):
    picture, mask = draw_car(seed, 858, 572)
    assert doubt(np.asarray(mask) // 255) is None
    assert doubt(predict_mask(shipped_model, picture)) is None


@pytest.mark.parametrize("picture", ["white", "noise", "door"])
def test_the_answer_to_what_is_no_whole_car_is_doubted(shipped_model, picture):
    noise = np.random.default_rng(0).integers(0, 256, (572, 858, 3), dtype=np.uint8)
    pictures = {
        "white": lambda: Image.new("RGB", (858, 572), "white"),
        "noise": lambda: Image.fromarray(noise),
        "door": lambda: Image.open(SCRIPT.parent / "car.jpg").crop((800, 510, 1110, 790)),
    }
    assert doubt(predict_mask(shipped_model, pictures[picture]()))


# The overlay and the figure


def test_the_overlay_leaves_what_is_far_from_the_car_as_it_was_and_tints_the_car():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 200, (60, 90, 3), dtype=np.uint8))
    mask = bright_box(90, 60)[1]
    drawn = np.asarray(overlay(image, mask)).astype(int)
    before = np.asarray(image).astype(int)
    near = np.zeros((60, 90), dtype=bool)
    near[10:42, 9:47] = True  # the box, rows 12 to 39 and columns 11 to 44, and two pixels around it
    assert np.array_equal(drawn[~near], before[~near])
    inside = (slice(20, 30), slice(20, 35))
    assert np.allclose(drawn[inside], 0.65 * before[inside] + 0.35 * np.array(infer_unet.TINT), atol=1.5)


def test_the_outline_runs_along_the_cars_edge_and_not_along_the_pictures():
    image = Image.new("RGB", (90, 60), "black")
    mask = np.zeros((60, 90), dtype=np.uint8)
    mask[30:] = 1  # a car that leaves the picture on three sides
    drawn = np.asarray(overlay(image, mask))
    assert (drawn[30] == infer_unet.TINT).all() or (drawn[29] == infer_unet.TINT).all()
    assert (drawn[45:] == drawn[45, 45]).all()


@pytest.mark.parametrize("value", [0, 1])
def test_an_empty_and_a_full_mask_have_no_outline(value):
    image = Image.new("RGB", (30, 20), "white")
    drawn = np.asarray(overlay(image, np.full((20, 30), value, dtype=np.uint8)))
    assert (drawn == drawn[0, 0]).all()


def test_a_car_is_drawn_alike_wherever_it_is_in_the_picture():
    """The overlay touches only the car's surroundings; nothing may come from where they are cut."""
    image = Image.new("RGB", (400, 300), "black")
    corner, middle = (np.zeros((300, 400), dtype=np.uint8) for _ in range(2))
    corner[-50:, -80:] = 1
    middle[100:150, 100:180] = 1
    drawn = [np.asarray(overlay(image, mask)) for mask in (corner, middle)]
    assert np.array_equal(drawn[0][-60:-10, -90:-10], drawn[1][90:140, 90:170])
    assert not drawn[1][:90].any() and not drawn[1][:, :90].any()


def test_the_overlay_does_not_change_the_photograph_it_is_given():
    image, mask = bright_box(90, 60)
    before = image.tobytes()
    overlay(image, mask)
    assert image.tobytes() == before


def test_the_figure_shows_the_input_image_beside_the_mask_where_it_is_zero(tmp_path, monkeypatch):
    figures = []
    original = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure,
        "savefig",
        lambda figure, *args, **kw: (figures.append(figure), original(figure, *args, **kw)),
    )
    image, mask = bright_box(90, 60)
    plot_img_and_mask(image, mask.astype(np.int64), tmp_path / "figure.png")
    left, right = figures[0].axes
    assert (left.get_title(), right.get_title()) == ("Input image", "Mask")
    assert np.array_equal(left.images[0].get_array(), np.asarray(image))
    assert np.array_equal(right.images[0].get_array(), mask == 0)
    assert Image.open(tmp_path / "figure.png").width > 600


# The command


def test_the_command_writes_overlay_mask_and_figure_and_prints_the_cars_share(folder, monkeypatch, capsys):
    words = ["car.png", "out.png", "--mask", "mask.png", "--figure", "figure.png", "--size", 60]
    assert main(monkeypatch, folder, *words) == 0
    expected = bright_box(90, 60)[1]
    assert capsys.readouterr() == (f"out.png: car on {expected.mean():.1%} of the picture\n", "")
    assert np.array_equal(np.asarray(Image.open(folder / "mask.png")), expected * 255)
    drawn = overlay(*bright_box(90, 60))
    assert np.array_equal(np.asarray(Image.open(folder / "out.png")), np.asarray(drawn))
    plot_img_and_mask(*bright_box(90, 60), folder / "expected.png")
    assert (folder / "figure.png").read_bytes() == (folder / "expected.png").read_bytes()
    (folder / "expected.png").unlink()
    assert names(folder) == {"model.pth", "car.png", "out.png", "mask.png", "figure.png"}


def test_the_repositorys_own_model_is_found_from_another_folder(folder, monkeypatch):
    (folder / "model.pth").unlink()
    assert main(monkeypatch, folder, "car.png", "out.png", "--size", 32) == 0


def test_a_name_that_standard_output_cannot_spell_stops_nothing(folder, monkeypatch):
    (folder / "car.png").rename(folder / "\u8f66.png")
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="cp1252"))
    assert main(monkeypatch, folder, "\u8f66.png", "\u51fa.png", "--size", 32) == 0
    assert printed.getvalue().startswith(rb"\u51fa.png: car on ")
    assert (folder / "\u51fa.png").exists()


def test_a_picture_without_a_car_gives_a_warning_and_its_files(folder, monkeypatch, capsys):
    Image.new("RGB", (40, 30)).save(folder / "dark.png")
    assert main(monkeypatch, folder, "dark.png", "out.png", "--size", 32) == 0
    printed = capsys.readouterr()
    assert printed.out == "out.png: car on 0.0% of the picture\n"
    assert printed.err.startswith("warning: no car found in dark.png") and printed.err.count("\n") == 1
    assert (folder / "out.png").exists()


def test_an_answer_that_can_be_no_car_gives_a_warning_and_its_files(folder, monkeypatch, capsys):
    Image.new("RGB", (40, 30), "white").save(folder / "white.png")
    assert main(monkeypatch, folder, "white.png", "out.png", "--size", 32) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: what is found in white.png can be no whole car: it fills 100.0%")
    assert printed.err.count("\n") == 1
    assert (folder / "out.png").exists()


@pytest.mark.parametrize("suffix", ["png", "JPG", "webp", "tif", "bmp", "gif"])
def test_the_outputs_format_is_that_of_its_name(folder, monkeypatch, suffix):
    assert main(monkeypatch, folder, "car.png", f"out.{suffix}", "--size", 32) == 0
    expected = {"JPG": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
    assert Image.open(folder / f"out.{suffix}").format == expected


def test_size_and_threshold_reach_the_network(folder, monkeypatch):
    calls = []

    def record(model, image, size, threshold, pad):
        calls.append((size, threshold))
        return np.zeros((image.height, image.width), dtype=np.uint8)

    monkeypatch.setattr(infer_unet, "predict_mask", record)
    main(monkeypatch, folder, "car.png", "out.png", "--size", 100, "--threshold", 0.3)
    main(monkeypatch, folder, "car.png", "out.png")
    assert calls == [(100, 0.3), (572, 0.5)]


def truncated(path: Path) -> None:
    bright_box(300, 200)[0].save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bomb(path: Path) -> None:
    """A PNG of a few hundred bytes whose header promises 60,000 x 60,000 pixels."""
    Image.new("L", (1, 1)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)


BAD_PICTURES = {
    "missing.png": (lambda path: None, "there is no picture"),
    "text.jpg": (lambda path: path.write_text("not a picture"), "not a picture that Pillow can open"),
    "empty.png": (lambda path: path.touch(), "not a picture that Pillow can open"),
    "truncated.jpg": (truncated, "truncated"),
    "truncated.png": (truncated, "truncated"),
    "bomb.png": (bomb, "million pixels"),
    "large bomb.png": (lambda path: Image.new("1", (10000, 9000)).save(path), "million pixels"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_bad_picture_is_one_error_and_nothing_is_written(folder, monkeypatch, name):
    make, said = BAD_PICTURES[name]
    make(folder / name)
    before = names(folder)
    message = main(monkeypatch, folder, name, "out.png", "--mask", "mask.png")
    assert message.startswith("error: ") and name in message and said in message and "\n" not in message
    assert names(folder) == before


def test_an_error_is_one_line_on_standard_error_and_exit_status_1(folder):
    command = [sys.executable, SCRIPT, "missing.png", "out.png"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: there is no picture missing.png\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["out.xyz"], "cannot tell the format of out.xyz"),
        (["out"], "cannot tell the format of out"),
        (["out.pth"], "cannot tell the format of out.pth"),
        (["out.ico"], "cannot tell the format of out.ico"),
        (["nowhere/out.png"], "no folder nowhere"),
        (["car.png"], "car.png is the input itself"),
        (["./car.png"], "car.png is the input itself"),
        (["link.png"], "link.png is the input itself"),
        (["taken.png"], "taken.png: it is a folder"),
        (["out.png", "--mask", "out.png"], "two outputs"),
        (["out.png", "--mask", "mask.png", "--figure", "./mask.png"], "two outputs"),
        (["out.png", "--mask", "car.png"], "car.png is the input itself"),
        (["out.png", "--figure", "nowhere/figure.png"], "no folder nowhere"),
        (["out.png", "--mask", "mask.jpg"], "lossless"),
        (["out.png", "--mask", "mask.gif"], "lossless"),
        (["out.png", "--model", "none.pth"], "no checkpoint none.pth"),
        (["out.png", "--model", "car.png"], "car.png is not a PyTorch checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_error_and_nothing_is_written(folder, monkeypatch, arguments, said):
    (folder / "taken.png").mkdir()
    try:
        (folder / "link.png").symlink_to(folder / "car.png")
    except OSError:  # Windows asks for a privilege
        os.link(folder / "car.png", folder / "link.png")
    before, picture = names(folder), (folder / "car.png").read_bytes()
    message = main(monkeypatch, folder, "car.png", *arguments)
    assert message.startswith("error: ") and said in message and "\n" not in message
    assert names(folder) == before and (folder / "car.png").read_bytes() == picture


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--size", 0),
        ("--size", 15),
        ("--size", 100_000),
        ("--threshold", 1.5),
        ("--threshold", 0),
        ("--threshold", "nan"),
    ],
)
def test_a_number_out_of_its_range_is_wrong_usage(folder, monkeypatch, capsys, option, value):
    assert main(monkeypatch, folder, "car.png", "out.png", option, value) == 2
    assert f"argument {option}: must be from" in capsys.readouterr().err


def test_an_unknown_device_is_an_error(folder, monkeypatch):
    monkeypatch.setattr(infer_unet, "pick_device", lambda name: pick_device("toaster"))
    assert main(monkeypatch, folder, "car.png", "out.png").startswith("error: unknown device 'toaster'")


@pytest.mark.parametrize("failing", ["overlay", "plot_img_and_mask"])
def test_when_one_output_cannot_be_written_none_is_and_the_old_ones_stay(folder, monkeypatch, failing):
    def disk_full(*_):
        raise OSError(28, "No space left on device")

    at_fault = {"overlay": "out.png", "plot_img_and_mask": "figure.png"}[failing]
    (folder / "out.png").write_text("old")
    (folder / "mask.png").write_text("old")
    before = names(folder)
    monkeypatch.setattr(infer_unet, failing, disk_full)
    message = main(
        monkeypatch, folder, "car.png", "out.png", "--mask", "mask.png", "--figure", "figure.png", "--size", 32
    )
    assert message == f"error: cannot write {at_fault}: No space left on device"
    assert names(folder) == before
    assert (folder / "out.png").read_text() == (folder / "mask.png").read_text() == "old"


def test_when_one_output_cannot_take_its_place_the_error_names_those_that_have(folder, monkeypatch):
    replace = os.replace

    def refuse(source, target):
        if target.name == "mask.png":
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    words = ["car.png", "out.png", "--mask", "mask.png", "--figure", "figure.png", "--size", 32]
    message = main(monkeypatch, folder, *words)
    assert message == "error: cannot write mask.png: Permission denied (written: figure.png)"
    assert names(folder) == {"car.png", "model.pth", "figure.png"}


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot limit a file's size")
@pytest.mark.parametrize("words", [["out.jpg"], ["out.png", "--figure", "figure.jpg"]], ids=["overlay", "figure"])
def test_a_full_disk_is_noticed_and_the_old_file_stays(folder, monkeypatch, words):
    import resource

    bright_box(300, 200)[0].save(folder / "car.png")
    (folder / words[-1]).write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        message = main(monkeypatch, folder, "car.png", *words, "--size", 32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert message == f"error: cannot write {words[-1]}: File too large"
    assert (folder / words[-1]).read_text() == "old"


@pytest.mark.parametrize("failure", [torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory")])
def test_too_little_memory_is_one_error(folder, monkeypatch, failure):
    def no_memory(*_):
        raise failure

    monkeypatch.setattr(infer_unet, "predict_mask", no_memory)
    message = main(monkeypatch, folder, "car.png", "out.png")
    assert message == "error: not enough memory: choose a smaller --size than 572 for car.png"
    assert not (folder / "out.png").exists()


def test_what_a_format_cannot_hold_is_an_error_that_names_the_file(folder, monkeypatch):
    Image.new("RGB", (20000, 2)).save(folder / "long.png")
    message = main(monkeypatch, folder, "long.png", "out.webp", "--size", 32)
    assert message.startswith("error: cannot write out.webp: ")


# A folder


@pytest.fixture
def pictures(folder: Path) -> Path:
    (folder / "in").mkdir()
    for name, size in [("a.jpg", (40, 30)), ("b.PNG", (30, 40)), ("c.gif", (33, 33))]:
        bright_box(*size)[0].save(folder / "in" / name)
    (folder / "in" / "notes.txt").write_text("not a picture, and not called one")
    (folder / "in" / ".hidden.jpg").write_text("neither")
    return folder


def test_every_picture_of_a_folder_is_done(pictures, monkeypatch, capsys):
    assert main(monkeypatch, pictures, "in", "out", "--mask", "masks", "--figure", "new/figures", "--size", 32) == 0
    printed = capsys.readouterr()
    assert [line.partition(":")[0] for line in printed.out.splitlines()] == [
        str(Path("out", f"{n}.png")) for n in "abc"
    ]
    assert printed.err == ""  # the bar is for terminals, not for a log
    for made in ("out", "masks", "new/figures"):
        assert names(pictures / made) == {"a.png", "b.png", "c.png"}
    assert Image.open(pictures / "out" / "b.png").size == (30, 40)


def test_a_picture_that_cannot_be_read_here_is_listed_and_not_passed_over(pictures, monkeypatch):
    (pictures / "in" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    said = main(monkeypatch, pictures, "in", "out", "--size", 32)
    assert "IMG_1.HEIC" in said and "JPEG or PNG" in said
    assert names(pictures / "out") == {"a.png", "b.png", "c.png"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes for a name")
def test_a_name_that_is_no_utf_8_is_done_like_any_other(pictures, monkeypatch, capsys):
    (pictures / "in" / "a.jpg").rename(pictures / "in" / os.fsdecode("汽车.jpg".encode("gbk")))
    assert main(monkeypatch, pictures, "in", "out", "--size", 32) == 0
    assert capsys.readouterr().err == ""
    assert os.fsdecode("汽车.png".encode("gbk")) in names(pictures / "out")


def test_a_name_of_83_chinese_characters_is_done_like_any_other(pictures, monkeypatch):
    (pictures / "in" / "a.jpg").rename(pictures / "in" / f"{'车' * 83}.jpg")
    assert main(monkeypatch, pictures, "in", "out", "--size", 32) == 0
    assert f"{'车' * 83}.png" in names(pictures / "out")


def test_in_a_folder_the_others_are_done_and_each_failure_is_listed(pictures, monkeypatch):
    (pictures / "in" / "bad.png").write_text("no picture")
    truncated(pictures / "in" / "c2.jpg")
    errors = main(monkeypatch, pictures, "in", "out", "--size", 32).splitlines()
    assert len(errors) == 3 and all(line.startswith("error: ") for line in errors)
    assert "bad.png" in errors[0] and "c2.jpg" in errors[1] and errors[2] == "error: 2 of 5 pictures could not be done"
    assert names(pictures / "out") == {"a.png", "b.png", "c.png"}


def test_pictures_that_differ_in_their_ending_only_get_outputs_of_their_own(pictures, monkeypatch):
    bright_box(30, 30)[0].save(pictures / "in" / "A.png" if sys.platform == "linux" else pictures / "in" / "a.png")
    assert main(monkeypatch, pictures, "in", "out", "--size", 32) == 0
    assert len(names(pictures / "out")) == 4
    assert {"a.jpg.png", "b.PNG.png", "c.gif.png"} < names(pictures / "out")


def test_an_output_folder_inside_the_input_folder_is_not_read_again(pictures, monkeypatch):
    before = {path: path.read_bytes() for path in (pictures / "in").iterdir()}
    for _ in range(2):
        assert main(monkeypatch, pictures, "in", "in/overlays", "--size", 32) == 0
    assert names(pictures / "in" / "overlays") == {"a.png", "b.png", "c.png"}
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["in", "in"], "is the input folder itself"),
        (["in", "in/../in"], "is the input folder itself"),
        (["in", "out", "--mask", "in"], "is the input folder itself"),
        (["in", "car.png"], "car.png is a file"),
        (["in", "out", "--mask", "out"], "two outputs"),
        (["in", "car.png/out"], "car.png"),
        (["in", "new", "--mask", "car.png/masks"], "car.png"),
        (["bare", "out"], "no picture in the folder bare"),
        (["in", "out", "--model", "none.pth"], "no checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_folder_that_cannot_be_done_is_one_error_and_nothing_is_written(pictures, monkeypatch, arguments, said):
    (pictures / "bare").mkdir()
    before = names(pictures)
    message = main(monkeypatch, pictures, *arguments)
    assert message.startswith("error: ") and said in message and "\n" not in message
    assert names(pictures) == before
    assert not {"out", "new"} & {path.name for path in pictures.iterdir()}


# Real photographs


def test_the_model_that_we_ship_finds_the_drawn_car_and_draws_it_at_its_own_size(folder, monkeypatch):
    root = SCRIPT.parent
    words = [root / "car.jpg", "out.jpg", "--mask", "mask.png", "--model", root / "model.pth"]
    assert main(monkeypatch, folder, *words) == 0
    assert Image.open(folder / "out.jpg").size == Image.open(folder / "mask.png").size == (1918, 1280)
    mask = np.asarray(Image.open(folder / "mask.png")) > 0
    truth = np.asarray(Image.open(root / "report" / "results" / "unet" / "car_mask.png").convert("L")) > 0
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) >= 0.99


def test_the_model_that_we_ship_is_narrow_in_float16_and_under_4_mb():
    path = SCRIPT.parent / "model.pth"
    weights = torch.load(path, map_location="cpu", weights_only=True)
    assert path.stat().st_size < 4_000_000
    assert {weight.dtype for weight in weights.values()} == {torch.float16}
    assert load_unet(path, torch.device("cpu")).final_conv.in_channels == 16
