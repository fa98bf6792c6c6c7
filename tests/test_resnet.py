"""The ResNets are torchvision's to the last weight, the tutorial's to the last line, and the small ones are small."""

import copy
import runpy
from pathlib import Path

import pytest
import torch
import torchvision

from labs.cats_dogs.scores import save_network
from labs.resnet import NETWORKS, BasicBlock, ResNet, resnet18, small
from lenet import count_parameters

SEEDS = Path(__file__).parent.parent.parent / "shared" / "seeds"


@pytest.fixture(scope="module", params=["resnet18", "resnet34"])
def pair(request):
    """Ours, and torchvision's, with weights and BatchNorm statistics that differ from each other's."""
    pair = NETWORKS[request.param](1000), getattr(torchvision.models, request.param)()
    for network in pair:
        for name, value in network.named_buffers():
            if "running" in name:
                value.uniform_(0.5, 1.5)
    return pair


def test_parameters_have_torchvisions_names_shapes_and_order(pair):
    ours, theirs = ([(name, value.shape) for name, value in network.state_dict().items()] for network in pair)
    assert ours == theirs


@pytest.mark.parametrize("to_ours", [True, False])
def test_weights_go_both_ways_and_then_the_outputs_are_identical(pair, to_ours):
    ours, theirs = copy.deepcopy(pair)
    into, out_of = (ours, theirs) if to_ours else (theirs, ours)
    into.load_state_dict(out_of.state_dict())
    x = torch.rand(2, 3, 64, 96)
    for training in (False, True):
        assert torch.equal(ours.train(training)(x), theirs.train(training)(x))


def test_the_architecture_prints_as_the_tutorial_shows_it():
    if not SEEDS.is_dir():
        pytest.skip("the tutorials are not here")
    (tutorial,) = SEEDS.glob("004_*.txt")
    text = "".join(tutorial.read_text(encoding="utf-8").split())
    printed = "".join(str(resnet18(num_classes=2)).split())
    assert printed.replace("affine=True,bias=True,", "affine=True,") in text  # newer versions of PyTorch print it too


def test_without_its_top_it_gives_maps():
    network = resnet18(include_top=False)
    assert network(torch.rand(1, 3, 64, 96)).shape == (1, 512, 2, 3)
    assert not any(name.startswith("fc") for name in network.state_dict())


def test_a_block_whose_convolutions_give_nothing_passes_on_what_it_gets():
    block = BasicBlock(4, 4)
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 4, 8, 8)
    assert torch.equal(block(x), x)


def test_blocks_are_counted_as_asked():
    network = ResNet(BasicBlock, [1, 2, 1, 3], num_classes=2)
    assert [len(getattr(network, f"layer{index}")) for index in (1, 2, 3, 4)] == [1, 2, 1, 3]


@pytest.mark.parametrize("size", [32, 75, 224])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_pictures_of_any_size(name, size):
    network = NETWORKS[name](2).eval()
    with torch.inference_mode():
        assert network(torch.rand(1, 3, size, size + 1)).shape == (1, 2)


def test_small_has_less_than_a_million_weights_and_a_file_of_less_than_2_mb(tmp_path):
    network = small(2)
    assert count_parameters(network) < 1_000_000
    save_network(tmp_path / "small.pth", network, "small", 160)
    assert (tmp_path / "small.pth").stat().st_size < 2_000_000


def test_the_module_prints_the_networks_as_the_tutorials_appendix_does(capsys):
    runpy.run_module("labs.resnet", run_name="__main__")
    printed = capsys.readouterr().out
    assert all(f"{name}: " in printed for name in NETWORKS)
    assert "\n\nresnet18: ResNet(\n  (conv1): Conv2d(3, 64, kernel_size=(7, 7)" in printed
    assert "\n\nresnet34: ResNet(\n" in printed and printed.count("(fc): Linear(in_features=512, out_features=2") == 2
