"""How large the classic networks are, what they compute, and how much they see (the strips tutorial, 3.1).

    python -m labs.networks           writes report/results/labs/networks.csv, in half a minute

prints a line for each network, such as

    VGG16             138,357,544 parameters   15,470.3 million operations for 3x224x224   a unit sees 212 rows

The definitions are torchvision's and this repository's; nothing is downloaded, since their sizes do not depend on what
the weights are. An operation is a multiplication with its addition, in a convolution or a full connection.
"""

import copy
from bisect import bisect_left
from typing import NamedTuple

import torch
from torch import nn

from labs.commands import lab_parser
from labs.resnet import resnet18, resnet34
from lenet import LeNet5
from report.tables import RESULTS
from training import command, told, write_rows
from unet import UNet

ROWS = 1024  # of a picture in which the field of a unit in the middle has room


class Network(NamedTuple):
    name: str
    year: int | None
    whole: nn.Module
    picture: tuple[int, int, int]  # channels, rows, columns
    maps: nn.Module  # what makes the last maps, of pictures of any size


def networks() -> list[Network]:
    """All of them as shapes without numbers (on the "meta" device): VGG16's weights alone would be half a gigabyte."""
    from torchvision import models  # takes as long to import as PyTorch itself

    from labs.cifar10.networks import CifarCNN  # another lab's, only to be counted

    photograph = (3, 224, 224)
    with torch.device("meta"):
        lenet, alexnet, vgg16 = LeNet5(), models.alexnet(), models.vgg16(init_weights=False)
        googlenet, with_heads = (models.googlenet(aux_logits=heads, init_weights=False) for heads in (False, True))
        cifar, unet = CifarCNN(), UNet(3, 1)
        lenet_maps = nn.Sequential(lenet.C1, lenet.S2, lenet.C3, lenet.S4)
        inceptions = nn.Sequential(*list(googlenet.children())[:-3])  # before the mean, dropout and full connection
        return [
            Network("LeNet-5", 1998, lenet.eval(), (1, 28, 28), lenet_maps),
            Network("AlexNet", 2012, alexnet.eval(), photograph, alexnet.features),
            Network("VGG16", 2014, vgg16.eval(), photograph, vgg16.features),
            Network("GoogLeNet", 2014, googlenet.eval(), photograph, inceptions),
            Network("GoogLeNet + heads", 2014, with_heads.train(), photograph, inceptions),
            Network("ResNet-18", 2015, resnet18().eval(), photograph, resnet18(include_top=False).eval()),
            Network("ResNet-34", 2015, resnet34().eval(), photograph, resnet34(include_top=False).eval()),
            Network("CifarCNN", None, cifar.eval(), (3, 32, 32), cifar.conv_layer),
            Network("U-Net", 2015, unet.eval(), photograph, UNet(3, 1, base_channels=1)),  # sees as much
        ]


def count_operations(network: nn.Module, picture: tuple[int, int, int]) -> int:
    """Multiplications, each with its addition, that `network` does for one `picture`."""
    from torch.utils.flop_counter import FlopCounterMode  # late, as torchvision is

    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, *picture, device=next(network.parameters()).device))
    return counter.get_total_flops() // 2


@torch.inference_mode()
def receptive_field(maps: nn.Module, channels: int) -> int:
    """How many rows of a picture the unit in the middle of the last maps of `maps` sees.

    NaN is contagious, whatever it is multiplied by: the unit becomes NaN if and only if a row that it sees is. So the
    weights may all be 0, and a few forward passes find the first and the last of those rows.
    """
    maps = copy.deepcopy(maps).to_empty(device="cpu")
    for numbers in (*maps.parameters(), *maps.buffers()):
        numbers.zero_()

    def sees(first: int, end: int) -> bool:
        picture = torch.zeros(1, channels, ROWS, 64)
        picture[:, :, first:end] = torch.nan
        output = maps(picture)
        return bool(output[0, 0, output.shape[2] // 2, output.shape[3] // 2].isnan())

    first = bisect_left(range(ROWS), True, key=lambda row: sees(0, row + 1))
    return bisect_left(range(ROWS), True, key=lambda row: not sees(row, ROWS)) - first


@command
def main() -> None:
    lab_parser("networks", __doc__).parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, year, whole, picture, maps in networks():
        row = {
            "network": name,
            "year": year,
            "picture": "x".join(map(str, picture)),
            "parameters": sum(parameter.numel() for parameter in whole.parameters()),
            "million_operations": count_operations(whole, picture) / 1e6,
            "field": receptive_field(maps, picture[0]),
        }
        rows.append(row)
        print(
            f"{name:17} {row['parameters']:11,} parameters   {row['million_operations']:8,.1f} million operations "
            f"for {row['picture']:9}   a unit sees {row['field']:3} rows",
            flush=True,
        )
    with told():
        write_rows(RESULTS / "labs" / "networks.csv", rows)


if __name__ == "__main__":
    main()
