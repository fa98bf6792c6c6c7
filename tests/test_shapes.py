"""The generator's pictures depend on seed and index alone, and their masks say where the shapes are."""

import numpy as np
import pytest
import torch

import labs.shapes.__main__ as lab
from labs.shapes.generator import Shapes, channels_first


def test_pictures_and_masks_have_the_shapes_of_the_seed():
    pictures, masks = Shapes(nx=128, ny=128, cnt=10, sigma=20)(2)
    assert (pictures.shape, masks.shape) == ((2, 128, 128, 1), (2, 128, 128, 2))


def test_nx_is_the_height_and_ny_the_width():
    assert Shapes(nx=64, ny=96)(1)[0].shape == (1, 64, 96, 1)


def test_a_picture_depends_on_seed_and_index_not_on_what_was_made_before():
    generator = Shapes()
    generator(3)
    alone, _ = Shapes()(1, first=2)
    assert np.array_equal(generator(1, first=2)[0], alone)
    assert not np.array_equal(Shapes(seed=1)(1, first=2)[0], alone)


@pytest.mark.parametrize("rgb", [False, True])
def test_values_reach_from_0_to_1(rgb):
    pictures, _ = Shapes(rgb=rgb)(3)
    assert pictures.dtype == np.float32 and pictures.min() >= 0 and pictures.max() <= 1
    assert rgb or (pictures.min(), pictures.max()) == (0, 1)


def test_every_pixel_is_of_one_class():
    for squares, classes in ((False, 2), (True, 3)):
        _, masks = Shapes(squares=squares)(3)
        assert masks.shape[-1] == classes and (masks.sum(axis=-1) == 1).all()


def test_without_noise_the_mask_is_where_the_picture_is_brighter_than_the_ground():
    generator = Shapes(sigma=0)
    grey, mask = generator.clean(0)
    assert ((grey > 1) <= mask[..., 1]).all() and (grey[mask[..., 0]] == 1).all()


def test_noise_has_the_deviation_that_was_asked_for():
    generator = Shapes(cnt=0, sigma=20)
    picture = generator.picture(0)[0].astype(float)
    assert np.std(picture) / np.ptp(picture) == pytest.approx(np.std(picture))  # from 0 to 1
    smaller = Shapes(cnt=1, sigma=1).clean(0)[0]
    noisy, _ = Shapes(cnt=1, sigma=20).picture(0)
    scale = np.polyfit(smaller.ravel(), noisy.ravel(), 1)[0]  # 1 grey level in the picture's units
    assert np.std(noisy[..., 0] - scale * smaller) / scale == pytest.approx(20, rel=0.05)


def test_discs_leave_room_for_the_ground():
    _, masks = Shapes()(50)
    assert 0.15 < masks[..., 1].mean() < 0.4


def test_rgb_goes_from_blue_to_red():
    grey, _ = Shapes(sigma=5)(1)
    rgb, _ = Shapes(sigma=5, rgb=True)(1)
    darkest, brightest = rgb[0][grey[0, ..., 0] < 0.1], rgb[0][grey[0, ..., 0] > 0.9]
    assert (darkest[:, 2] > darkest[:, 0]).all() and (brightest[:, 0] > brightest[:, 2]).all()


def test_channels_first_gives_what_pytorch_takes():
    pictures, masks = Shapes(nx=32, ny=48, r_max=8, border=4)(2)
    images, targets = channels_first(pictures, masks)
    assert (images.shape, targets.shape) == ((2, 1, 32, 48), (2, 2, 32, 48))
    assert images.dtype == targets.dtype == torch.float32
    assert images[1, 0, 5, 7] == pictures[1, 5, 7, 0] and targets[0, 1, 5, 7] == masks[0, 5, 7, 1]


@pytest.mark.parametrize("wrong", [{"border": 64}, {"r_min": 20}, {"r_min": 0}, {"sigma": -1}, {"cnt": -1}])
def test_settings_that_make_no_picture_are_refused(wrong):
    with pytest.raises(ValueError, match="^a border must leave a place"):
        Shapes(**wrong)


def test_the_figure_is_written_with_the_options_of_the_generator(tmp_path, monkeypatch):
    options = ["--sigma", "5", "--count", "3", "--nx", "64", "--squares", "--rgb", "--seed", "2"]
    monkeypatch.setattr("sys.argv", ["shapes", *options, "--out", str(tmp_path / "new" / "shapes.png")])
    lab.main()
    assert (tmp_path / "new" / "shapes.png").exists()


def test_a_figure_whose_name_has_no_ending_is_a_png(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["shapes", "--out", str(tmp_path / "shapes")])
    lab.main()
    assert (tmp_path / "shapes").read_bytes().startswith(b"\x89PNG")
