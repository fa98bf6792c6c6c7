"""Every network that the repository ships, by its name and with what it learned.

    load("lenet")                                             in eval mode, on the CPU
    load("cats_dogs", Path("runs/mine"), device)              a run's; a file of weights does as well
    python -m labs.weights keep cats_dogs runs/mine           a finished run's weights become the shipped ones

`lenet` is what `python -m report.experiments best` made, `unet` the coursework's `model.pth`. `lenet_original` reads
99.42% of the test digits, and is none of the five trainings in the report: its run was not kept. Its like comes of

    python train_lenet.py --model original --epochs 20 --out runs/original
    python -m labs.weights keep lenet_original runs/original
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from labs.commands import copy_whole, finished, lab_parser
from lenet import LeNet5, LeNet5Original
from training import ROOT, command, told
from unet import load_unet

LABS = ROOT / "labs"
CPU = torch.device("cpu")
Held = dict[str, Any]  # what a file of weights holds


def filled(network: nn.Module, weights: Held) -> nn.Module:
    """`network` with `weights`, which may be of half precision."""
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    return network


# Each imports its network itself: who wants one need not load all the others.


def digit_strips(held: Held) -> nn.Module:
    from labs.digit_strips.strips import CNN

    return filled(CNN(), held)


def cats_dogs(held: Held) -> nn.Module:
    """Any of labs/resnet.py: the file says which, and for pictures of what size, the network's `size`."""
    from labs.resnet import NETWORKS

    network = filled(NETWORKS[held["network"]](2), held["weights"])
    network.size = int(held["size"])
    return network.to(memory_format=torch.channels_last)


def cifar(held: Held) -> nn.Module:
    """Either of the lab's two: the names of its weights say which."""
    from labs.cifar10.networks import CifarCNN, FastCNN, Standardized

    if "network.head.weight" not in held:
        return filled(Standardized(CifarCNN()), held)
    widths = [held[f"network.blocks.{block}.conv1.weight"].shape[0] for block in range(3)]
    return filled(Standardized(FastCNN(tuple(widths))), held)


class Shipped(NamedTuple):
    path: Path | None  # where it lies in the repository, if it does
    script: str  # whose checkpoint its run has
    file: str  # its weights in the folder of a run
    make: Callable[[Held], nn.Module] | None  # raises anything for what is not its own


NETWORKS = {
    "lenet": Shipped(LABS / "weights/lenet.pth", "train_lenet.py", "lenet.pth", lambda held: filled(LeNet5(), held)),
    "lenet_original": Shipped(
        LABS / "weights/lenet_original.pth", "train_lenet.py", "lenet.pth", lambda held: filled(LeNet5Original(), held)
    ),
    "unet": Shipped(ROOT / "model.pth", "train_unet.py", "model.pth", None),  # unet.py reads it, for strangers too
    "digit_strips": Shipped(
        LABS / "digit_strips/digit_strips.pth", "digit_strips.py", "digit_strips.pth", digit_strips
    ),
    "cats_dogs": Shipped(LABS / "cats_dogs/cats_dogs.pth", "labs/cats_dogs.py", "cats_dogs.pth", cats_dogs),
    "cifar": Shipped(None, "labs/cifar10.py", "cifar10.pth", cifar),
}
KEPT_HERE = ("lenet_original", "digit_strips", "cats_dogs")  # the others are made elsewhere


def load(name: str, path: Path | None = None, device: torch.device = CPU) -> nn.Module:
    """The network called `name`, float32, in eval mode, with the weights in `path`, a file or a run's folder.

    Without `path` those in the repository. Nothing in the file can run. Raises ValueError or OSError, worded for users.
    """
    shipped, _, file, make = NETWORKS[name]
    path = path or shipped
    if path is None:
        raise ValueError(f"the weights of {name} are too large for the repository: give yours, a run's {file}")
    path = path / file if path.is_dir() else path
    if make is None:
        return load_unet(path, device)
    try:
        return make(torch.load(path, map_location="cpu", weights_only=True)).to(device).eval()
    except FileNotFoundError:
        raise ValueError(f"there are no weights {path}: give the folder of a finished run, or its {file}") from None
    except Exception:  # torch.load raises almost anything for another file
        raise ValueError(f"{path} does not hold the weights of {name}: give a run's {file}") from None


@command
def main() -> None:
    parser = lab_parser("weights", __doc__)
    parser.add_argument("what", choices=["keep"])
    parser.add_argument("name", choices=KEPT_HERE)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    args = parser.parse_args()
    path, script, file, _ = NETWORKS[args.name]
    with told():
        finished(args.run, script)
        load(args.name, args.run)  # it is such a network
        copy_whole(args.run / file, path)


if __name__ == "__main__":
    main()
