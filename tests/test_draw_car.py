"""The drawn car: the same each time, and its mask is exactly where the car is."""

from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageFilter

from carvana import find_pairs, read_mask
from report.draw_car import draw_car, draw_folder

SIZE = (288, 192)
drawn = cache(lambda seed, empty=False: draw_car(seed, *SIZE, empty=empty))


def difference(seed: int) -> tuple[np.ndarray, Image.Image]:
    """How far the picture is from the studio without the car, `[H, W]`, and the mask."""
    picture, mask = drawn(seed)
    studio, nothing = drawn(seed, empty=True)
    assert not np.asarray(nothing).any()
    return np.abs(np.asarray(picture, dtype=int) - np.asarray(studio, dtype=int)).max(axis=2), mask


def test_the_same_seed_gives_the_same_picture():
    for first, second in zip(drawn(0), draw_car(0, *SIZE), strict=True):
        assert np.array_equal(np.asarray(first), np.asarray(second))


def test_another_seed_gives_another_car():
    assert not np.array_equal(np.asarray(drawn(1)[1]), np.asarray(drawn(4)[1]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_mask_has_two_values_and_a_plausible_share(seed):
    picture, mask = drawn(seed)
    assert (picture.mode, picture.size, mask.mode, mask.size) == ("RGB", SIZE, "L", SIZE)
    values = np.asarray(mask)
    assert set(np.unique(values)) == {0, 255}
    assert 0.15 < values.mean() / 255 < 0.60


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_above_the_wheels_the_picture_differs_from_the_empty_studio_only_inside_the_mask(seed):
    changed, mask = difference(seed)
    rows = np.flatnonzero(np.asarray(mask).any(axis=1))
    above = slice(0, rows[0] + (rows[-1] - rows[0]) // 2)  # below half its height the shadow begins
    outside = np.asarray(mask.filter(ImageFilter.MaxFilter(5))) == 0  # two pixels for the lens
    assert changed[above][outside[above]].max() == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_outline_of_the_mask_is_where_the_car_begins(seed):
    changed, mask = difference(seed)
    car = np.asarray(mask) > 0
    one_in = np.asarray(mask.filter(ImageFilter.MinFilter(3))) > 0
    two_in = np.asarray(mask.filter(ImageFilter.MinFilter(5))) > 0
    ring = one_in & ~two_in
    assert np.mean(changed[ring] > 12) > 0.95
    assert np.mean(changed[car] > 12) > 0.85


def test_a_folder_of_drawn_cars_can_be_trained_on(tmp_path):
    draw_folder(tmp_path, [1, 4], *SIZE)
    pairs = find_pairs(tmp_path)
    assert [pair.photo.name for pair in pairs] == ["drawn001_01.jpg", "drawn004_01.jpg"]
    assert np.array_equal(read_mask(pairs[0].mask, pairs[0].half), np.asarray(drawn(1)[1]) > 0)
