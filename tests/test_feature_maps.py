"""Tests of labs/feature_maps."""

import sys
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import labs.feature_maps.__main__ as lab
from labs import weights
from labs.cats_dogs.scores import save_network
from labs.cifar10.networks import CifarCNN, FastCNN, Standardized
from labs.feature_maps.receptive_field import field_by_gradient, output_rows, receptive_field
from labs.resnet import plain, resnet18, small
from lenet import LeNet5, LeNet5Original
from training import save_weights
from unet import UNet

NETWORKS = {
    "LeNet-5": (LeNet5, (1, 28, 28)),
    "LeNet-5 of 1998": (LeNet5Original, (1, 28, 28)),
    "U-Net": (lambda: UNet(3, 1, base_channels=2), (3, 96, 112)),
    "CifarCNN": (CifarCNN, (3, 32, 32)),
    "FastCNN": (lambda: FastCNN((8, 8, 8)), (3, 32, 32)),
    "plain": (partial(plain, 2), (3, 224, 224)),
    "ResNet-18": (partial(resnet18, 2), (3, 64, 64)),
}


def make(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    kind, size = NETWORKS[name]
    return kind().eval(), torch.rand(1, *size)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_formula_says_of_every_layer_what_the_gradient_says(name):
    network, picture = make(name)
    for layer, maps in lab.layer_outputs(network, picture).items():
        row = maps.shape[1] // 2
        first, last = receptive_field(network, layer, (row, row))
        assert field_by_gradient(network, layer, picture, row) == (max(0, first), min(picture.shape[2] - 1, last)), (
            layer
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_has_as_many_rows_as_the_formula_says(name):
    network, picture = make(name)
    for layer, maps in lab.layer_outputs(network, picture).items():
        assert output_rows(network, layer, picture.shape[2]) == maps.shape[1], layer


@pytest.mark.parametrize(
    ("name", "layer", "rows"),
    [
        ("LeNet-5", "C1", 5),
        ("LeNet-5", "C3", 14),
        ("LeNet-5 of 1998", "S4", 16),
        ("U-Net", "middle_conv.2", 140),
        ("ResNet-18", "layer4.1.bn2", 435),
    ],
)
def test_known_receptive_fields(name, layer, rows):
    first, last = receptive_field(make(name)[0], layer, (3, 3))
    assert last - first + 1 == rows


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_named_as_in_the_code_in_the_order_of_their_calls(name):
    network, picture = make(name)
    outputs = lab.layer_outputs(network, picture)
    for layer in outputs:
        network.get_submodule(layer)
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    assert network.get_submodule(next(iter(outputs))) is first


def test_a_convolution_is_shown_as_it_was_before_a_relu_overwrote_it():
    network, picture = make("U-Net")
    outputs = lab.layer_outputs(network, picture)
    assert outputs["down_conv1.0"].min() < 0
    assert torch.equal(outputs["down_conv1.0"].relu(), outputs["down_conv1.1"])


def run(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["feature_maps", *map(str, arguments)])
    lab.main()


def test_the_car_gives_four_sheets_and_a_line_for_each_layer(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lab, "ROWS", 96)
    weights = tmp_path / "narrow.pth"
    save_weights(weights, UNet(3, 1, base_channels=2))
    run(monkeypatch, "unet", lab.ROOT / "car.jpg", "--out", tmp_path / "maps", "--layer", "concat1", "--model", weights)
    files = {path.name for path in (tmp_path / "maps").iterdir()}
    assert files == {"fields.csv", "layers.png", "concat1.png", "kernels.png", "levels.png"}
    assert capsys.readouterr().out.splitlines()[-1].split() == ["final_conv", "1x96x144", "1", "188", "96"]


@pytest.mark.parametrize("size", [(3000, 20), (20, 3000)])
def test_a_picture_that_is_a_strip_has_maps_too(tmp_path, size):
    Image.new("RGB", size, (200, 100, 50)).save(tmp_path / "strip.png")
    picture = lab.large_photograph(tmp_path / "strip.png")
    assert min(picture.shape[2:]) == 16
    UNet(3, 1, base_channels=2)(picture)


def test_what_the_text_shows_are_the_levels_of_the_shipped_classifier(tmp_path, monkeypatch):
    save_weights(tmp_path / "cifar10.pth", Standardized(FastCNN((8, 8, 8))))
    shipped = weights.NETWORKS["cifar"]._replace(path=tmp_path / "cifar10.pth")
    monkeypatch.setitem(weights.NETWORKS, "cifar", shipped)
    monkeypatch.setattr(lab, "RESULTS", tmp_path)
    monkeypatch.setattr(lab, "__file__", str(tmp_path / "__main__.py"))
    (tmp_path / "labs").mkdir()
    lab.keep()
    assert (tmp_path / "levels.png").exists() and (tmp_path / "labs" / "fields_lenet.csv").exists()


def test_a_formula_that_the_gradient_contradicts_is_an_error(monkeypatch):
    network, picture = make("LeNet-5")
    monkeypatch.setattr(lab, "receptive_field", lambda network, layer, rows: (rows[0] - 1, rows[1] + 1))
    with pytest.raises(ValueError, match="C1: the formula says rows 13 to 15, the gradient 12 to 16"):
        lab.fields(network, picture, lab.layer_outputs(network, picture))


def test_after_a_hundred_pictures_a_new_sheet_begins(tmp_path, monkeypatch):
    sheets = {}

    @contextmanager
    def drawing(path, *_, **__):
        sheets[path.name] = Figure()
        yield sheets[path.name]

    monkeypatch.setattr(lab, "drawing", drawing)
    lab.draw_sheets(tmp_path / "C3.png", "Maps", torch.rand(130, 4, 4))
    shown = {name: [axes.get_title() for axes in sheet.axes if axes.images] for name, sheet in sheets.items()}
    assert shown == {"C3.png": list(map(str, range(100))), "C3-2.png": list(map(str, range(100, 130)))}
    assert sheets["C3-2.png"].get_suptitle() == "Maps, sheet 2"


def test_the_weights_of_a_run_on_cats_and_dogs_are_read(tmp_path, monkeypatch, capsys):
    """Its pictures have 64 rows here, for 224 take seconds, and the sheets are left to the test of the car."""
    open_picture = lab.open_picture
    monkeypatch.setattr(lab, "open_picture", lambda path, _: open_picture(path, 64))
    for name in ("draw_sheets", "draw_levels"):
        monkeypatch.setattr(lab, name, lambda *_: None)
    save_network(tmp_path / "cats_dogs.pth", small(2), "small", size=64)
    run(monkeypatch, "cats_dogs", lab.ROOT / "car.jpg", "--out", tmp_path, "--model", tmp_path / "cats_dogs.pth")
    assert "by its gradient" in capsys.readouterr().out


def test_the_weights_of_a_run_on_cifar_are_read(tmp_path, monkeypatch, capsys):
    save_weights(tmp_path / "cifar10.pth", Standardized(CifarCNN()))
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(tmp_path / "grey.png")
    first = {}
    monkeypatch.setattr(lab, "draw_sheets", lambda path, _, pictures, *__: first.update({path.name: pictures[0]}))
    run(monkeypatch, "cifar", tmp_path / "grey.png", "--out", tmp_path, "--model", tmp_path / "cifar10.pth")
    assert "network.conv_layer.0" in capsys.readouterr().out
    assert first["kernels.png"].shape == (3, 3, 3)  # three colours


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lenet", "missing.png"], "missing.png"),
        (["lenet", lab.ROOT / "car.jpg", "--layer", "C9"], "lenet has no layer C9 with maps: choose of C1, S2, C3, S4"),
        (
            ["lenet", lab.ROOT / "car.jpg", "--model", lab.ROOT / "car.jpg"],
            "does not hold the weights of lenet: give a run's lenet.pth",
        ),
        (["lenet", lab.ROOT / "car.jpg", "--model", "missing.pth"], "there are no weights missing.pth"),
    ],
)
def test_what_cannot_be_done_is_one_error(tmp_path, monkeypatch, arguments, message):
    with pytest.raises(SystemExit, match="^error: ") as stop:
        run(monkeypatch, *arguments, "--out", tmp_path / "maps")
    assert message in stop.value.code
    assert not (tmp_path / "maps").exists()
