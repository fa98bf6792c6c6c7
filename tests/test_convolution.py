"""Convolution by hand gives the tutorial's matrices and PyTorch's numbers, and what is said of its relatives holds."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import labs.convolution.__main__ as lab
from labs.convolution.__main__ import (
    conv2d,
    convolution,
    deconv2d,
    fill_zeros,
    grouped_conv2d,
    output_size,
    pool_with_ceil,
)

CONV_OUTPUT = [[[2, 0, 2, 4, 0], [1, 4, 4, 3, 5], [4, 3, 5, 9, -1], [3, 4, 6, 2, 1], [5, 3, 5, 1, -2]]]
DECONV_OUTPUT = [
    [[3, 3, 2, 7, 5], [6, 8, 5, 11, 2], [2, 7, 2, 3, 3], [5, 11, 3, 9, 3], [1, 4, 5, 4, 4]],
    [[6, 0, 1, 8, 5], [0, 8, -2, 14, 2], [3, 9, 8, 1, 0], [0, 13, 0, 11, 2], [5, 3, 1, 3, 0]],
]


@pytest.fixture
def random():
    return np.random.default_rng(1)


def test_conv2d_gives_the_seeds_matrix():
    assert conv2d(np.array(lab.CONV_INPUT), np.array(lab.CONV_WEIGHTS)).tolist() == CONV_OUTPUT


def test_deconv2d_gives_the_seeds_matrices():
    assert deconv2d(np.array(lab.DECONV_INPUT), np.array(lab.DECONV_WEIGHTS)).tolist() == DECONV_OUTPUT


def test_the_kernel_is_laid_on_as_it_stands_not_turned():
    assert convolution(np.eye(1), np.arange(9).reshape(3, 3)) == [[4]]
    assert convolution(np.array([[0, 1]]), np.arange(9).reshape(3, 3)).tolist() == [[5, 4]]


@pytest.mark.parametrize("size", [(1, 1), (4, 2), (5, 9)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_conv2d_agrees_with_pytorch(random, size, kernel):
    x, weights = random.normal(size=(3, *size)), random.normal(size=(2, 3, kernel, kernel))
    theirs = F.conv2d(torch.from_numpy(x)[None], torch.from_numpy(weights), padding="same")[0]
    assert np.allclose(conv2d(x, weights), theirs)


@pytest.mark.parametrize("size", [(1, 1), (4, 2), (5, 9)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_deconv2d_agrees_with_pytorchs_layer_of_the_turned_kernel(random, size, kernel):
    x, weights = random.normal(size=(3, *size)), random.normal(size=(2, 3, kernel, kernel))
    layer = nn.ConvTranspose2d(3, 2, kernel, stride=2, padding=kernel // 2, bias=False, dtype=torch.float64)
    turned = np.rot90(weights, 2, axes=(2, 3)).copy()
    layer.load_state_dict({"weight": torch.from_numpy(turned).transpose(0, 1)})
    assert np.allclose(deconv2d(x, weights), layer(torch.from_numpy(x)[None])[0].detach())


def test_the_cifar_tutorials_eight_kernels_make_eight_maps_of_half_the_size(random):
    assert conv2d(random.normal(size=(8, 6, 6)), random.normal(size=(8, 8, 3, 3)), stride=2).shape == (8, 3, 3)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_stride_and_dilation_agree_with_pytorch(random, stride, dilation):
    x, weights = random.normal(size=(3, 7, 8)), random.normal(size=(2, 3, 3, 3))
    theirs = F.conv2d(torch.from_numpy(x)[None], torch.from_numpy(weights), None, stride, dilation, dilation)[0]
    assert np.allclose(conv2d(x, weights, stride, dilation), theirs)


def test_plain_upsampling_is_pytorchs_and_a_transposed_convolution(random):
    assert max(lab.check_upsampling(random.normal(size=(4, 6))).values()) < 1e-12


def test_bces_gradient_is_the_mistake_and_mses_has_the_sigmoids_slope_in_it():
    scores = torch.linspace(-9, 9, 19, dtype=torch.float64)
    mistake, steepness = scores.sigmoid() - 1, scores.sigmoid() * (1 - scores.sigmoid())
    assert torch.allclose(lab.slope(lab.LOSSES["BCE"], scores), mistake)
    assert torch.allclose(lab.slope(lab.LOSSES["MSE"], scores), 2 * mistake * steepness)


def test_fill_zeros_puts_zeros_around_and_between():
    assert fill_zeros(np.array([[[1, 2]]])).tolist() == [[[0, 0, 0, 0, 0], [0, 1, 0, 2, 0], [0, 0, 0, 0, 0]]]


def test_the_output_size_is_the_layers():
    sizes = lab.check_output_sizes()
    assert sizes["right"] == sizes["layers"] > 600


def test_the_output_size_of_the_seeds_example():
    assert output_size(28, kernel=5, padding=2) == 28
    assert output_size(28, kernel=2, stride=2) == 14


def test_ceil_pooling_makes_3x3_of_5x5_also_where_all_is_negative(random):
    x = random.normal(size=(5, 5)) - 10
    theirs = nn.MaxPool2d(2, ceil_mode=True)(torch.from_numpy(x)[None])[0]
    assert pool_with_ceil(x).tolist() == theirs.tolist()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_agree_with_pytorch(random, groups):
    x, weights = random.normal(size=(4, 5, 5)), random.normal(size=(8, 4 // groups, 3, 3))
    theirs = F.conv2d(torch.from_numpy(x)[None], torch.from_numpy(weights), padding=1, groups=groups)[0]
    assert np.allclose(grouped_conv2d(x, weights, groups), theirs)


def test_the_relatives_differ_from_pytorch_by_rounding_only(random):
    differences = lab.check_relatives(random)
    assert differences["full_connection"] < 1e-12
    assert [differences[f"weights_{groups}"] for groups in (1, 2, 4)] == [288, 144, 72]


def test_the_kernels_blur_and_sharpen_without_changing_the_brightness():
    assert (lab.BLUR.sum(), lab.SHARPEN.sum(), lab.SOBEL.sum()) == (pytest.approx(1), 1, 0)


def test_a_step_has_an_edge_and_an_even_picture_none(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(lab, "draw_panels", lambda path, panels: drawn.update(panels))
    picture = np.zeros((9, 12, 3))
    picture[:, 6:] = 1
    lab.draw_filters(tmp_path / "a.jpg", picture)
    assert (drawn["Sobel edges"][4] < 1).nonzero()[0].tolist() == [5, 6]


@pytest.mark.parametrize("mode", lab.PADDING_MODES)
def test_the_padding_modes_are_those_of_the_layer(random, tmp_path, monkeypatch, mode):
    drawn = {}
    monkeypatch.setattr(lab, "draw_panels", lambda path, panels: drawn.update(panels))
    x = random.random(size=(6, 9, 3))
    lab.draw_padding_modes(tmp_path / "a.jpg", x)
    layer = nn.Conv2d(1, 1, 1, padding=(2, 3), padding_mode=mode, bias=False, dtype=torch.float64)
    nn.init.ones_(layer.weight)
    assert np.array_equal(drawn[mode][..., 0], layer(torch.from_numpy(x[None, ..., 0]))[0].detach())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The lab in a folder of its own, with a small car.jpg and so little filtering."""
    Image.new("RGB", (48, 32), "gray").save(tmp_path / "car.jpg")
    monkeypatch.setattr(lab, "ROOT", tmp_path)
    monkeypatch.setattr(lab, "FIGURES", tmp_path)
    monkeypatch.setattr(lab, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("sys.argv", ["convolution"])
    monkeypatch.setattr(lab, "draw_filters", lambda path, picture: path.touch())
    return tmp_path


def test_the_command_prints_the_matrices_and_that_pytorch_agrees(folder, capsys):
    lab.main()
    printed = capsys.readouterr().out
    assert "[[[ 2.  0.  2.  4.  0.]\n  [ 1.  4.  4.  3.  5.]" in printed
    assert "[ 0.  8. -2. 14.  2.]" in printed
    assert re.search(r"PyTorch agrees on \d+ random inputs: largest difference \de-1\d", printed)
    figures = ("filters.jpg", "padding.jpg", "upsampling.png", "sigmoid.png")
    assert all((folder / figure).exists() for figure in figures)
    assert (folder / "results" / "labs" / "convolution.json").exists()
    assert len((folder / "results" / "labs" / "convolution_gradients.csv").read_text().splitlines()) == 5


def test_without_car_jpg_the_command_ends_with_one_line(folder):
    (folder / "car.jpg").unlink()
    with pytest.raises(SystemExit, match="^error: there is no picture [^\n]+car.jpg$"):
        lab.main()
