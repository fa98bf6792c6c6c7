"""The counts of labs/networks are the published ones, and the fields those that the formula gives."""

import csv
import sys

import pytest
import torch
from torch import nn

import labs.networks.__main__ as lab
from labs.feature_maps.receptive_field import receptive_field as by_formula
from labs.resnet import resnet18
from lenet import count_parameters
from unet import UNet


@pytest.fixture(scope="module")
def networks():
    return {network.name: network for network in lab.networks()}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("LeNet-5", 61_706),
        ("AlexNet", 61_100_840),
        ("VGG16", 138_357_544),
        ("GoogLeNet", 6_624_904),
        ("GoogLeNet + heads", 13_004_888),
        ("ResNet-18", 11_689_512),
        ("ResNet-34", 21_797_672),
        ("CifarCNN", 5_852_170),
        ("U-Net", 31_031_745),
    ],
)
def test_the_parameters_are_the_published_ones(networks, name, parameters):
    assert count_parameters(networks[name].whole) == parameters


def test_lenets_operations_are_those_counted_by_hand(networks):
    by_hand = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10
    assert lab.count_operations(networks["LeNet-5"].whole, (1, 28, 28)) == by_hand


def test_vgg16_does_fifteen_and_a_half_thousand_million_operations(networks):
    assert lab.count_operations(networks["VGG16"].whole, (3, 224, 224)) == 15_470_264_320


@pytest.mark.parametrize(
    ("maps", "channels", "field"),
    [
        (nn.Conv2d(1, 2, 3), 1, 3),
        (nn.Sequential(nn.Conv2d(2, 1, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)), 2, 6),
        (nn.Conv2d(1, 1, 3, padding=4, dilation=4), 1, 9),
    ],
)
def test_the_field_of_a_few_layers_is_known(maps, channels, field):
    assert lab.receptive_field(maps, channels) == field


@pytest.mark.parametrize(
    ("maps", "layer", "rows"), [(UNet(3, 1, base_channels=1), "final_conv", 1024), (resnet18(), "layer4.1.relu", 32)]
)
def test_the_field_is_that_of_the_formula_where_ways_meet(maps, layer, rows):
    first, last = by_formula(maps, layer, (rows // 2, rows // 2))
    maps = resnet18(include_top=False).eval() if layer.startswith("layer4") else maps
    assert lab.receptive_field(maps, 3) == last - first + 1


def test_the_weights_are_left_as_they_were():
    maps = nn.Conv2d(1, 1, 3)
    before = maps.weight.clone()
    lab.receptive_field(maps, 1)
    assert torch.equal(maps.weight, before)


def test_the_command_writes_a_row_for_each_network(networks, tmp_path, monkeypatch, capsys):
    (tmp_path / "labs").mkdir()
    monkeypatch.setattr(lab, "RESULTS", tmp_path)
    monkeypatch.setattr(lab, "networks", lambda: [networks["LeNet-5"]])
    monkeypatch.setattr(lab.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(sys, "argv", ["networks"])
    lab.main()
    (row,) = csv.DictReader((tmp_path / "labs" / "networks.csv").open())
    assert (row["parameters"], row["million_operations"], row["field"]) == ("61706", "0.41652", "16")
    assert "61,706 parameters" in capsys.readouterr().out
