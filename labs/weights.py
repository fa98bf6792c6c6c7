"""Every network that the repository ships, by its name and with what it learned.

    load("lenet")                                             in eval mode, on the CPU
    load("cats_dogs", Path("runs/mine"), device)              a run's; a file of weights does as well
    python -m labs.weights keep cats_dogs runs/mine           a finished run's weights become the shipped ones

`lenet` is what `python -m report.experiments best` made, `unet` the coursework's `model.pth`. `lenet_original` is none
of the five trainings in the report: its run was not kept. Its like comes of

    python train_lenet.py --model original --epochs 20 --out runs/original
    python -m labs.weights keep lenet_original runs/original
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from labs.commands import copy_whole, lab_parser, to_keep
from lenet import LeNet5, LeNet5Original
from training import ROOT, command, told
from unet import load_unet, read_checkpoint

LABS = ROOT / "labs"
CPU = torch.device("cpu")


class Shipped(NamedTuple):
    path: Path  # in the repository
    script: str  # as its runs' checkpoints name it, those from before the folders as well
    file: str  # its weights in the folder of a run


NETWORKS = {
    "lenet": Shipped(LABS / "weights" / "lenet.pth", "train_lenet.py", "lenet.pth"),
    "lenet_original": Shipped(LABS / "weights" / "lenet_original.pth", "train_lenet.py", "lenet.pth"),
    "unet": Shipped(ROOT / "model.pth", "train_unet.py", "model.pth"),
    "digit_strips": Shipped(LABS / "digit_strips" / "digit_strips.pth", "digit_strips.py", "digit_strips.pth"),
    "cats_dogs": Shipped(LABS / "cats_dogs" / "cats_dogs.pth", "labs/cats_dogs.py", "cats_dogs.pth"),
    "cifar": Shipped(LABS / "cifar10" / "cifar10.pth", "labs/cifar10.py", "cifar10.pth"),
}
KEPT_HERE = ("lenet_original", "digit_strips", "cats_dogs", "cifar")  # the others are made elsewhere


def build(name: str, held: dict[str, Any]) -> nn.Module:
    """The network called `name` with what a file holds, of whatever precision; raises anything for what is not its own.

    What is not needed is not imported. Only of cats and dogs a file holds more than weights: which of labs/resnet.py it
    is, the size of its pictures, the network's `size`, and whether it is asked about their mirror images, `mirrored`.
    """
    weights = held
    if name in ("lenet", "lenet_original"):
        network = LeNet5() if name == "lenet" else LeNet5Original()
    elif name == "digit_strips":
        from labs.digit_strips.strips import CNN

        network = CNN()
    elif name == "cats_dogs":
        from labs.resnet import NETWORKS

        network, weights = NETWORKS[held["network"]](2), held["weights"]
        network.to(memory_format=torch.channels_last)
        network.size, network.mirrored = int(held["size"]), bool(held.get("mirrored", True))
    else:
        from labs.cifar10.networks import Standardized, network_of

        network = Standardized(network_of(weights))
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    return network


def load(name: str, path: Path | None = None, device: torch.device = CPU) -> nn.Module:
    """The network called `name`, float32, in eval mode, with the weights in `path`, a file or a run's folder.

    Without `path` those in the repository. Nothing in the file can run. Raises ValueError or OSError, worded for users.
    """
    shipped, _, file = NETWORKS[name]
    path = path or shipped
    path = path / file if path.is_dir() else path
    if name == "unet":
        return load_unet(path, device)  # which takes strangers' files, too
    if not path.exists():
        cure = f"give the folder of a finished run, or its {file}"
        if path == shipped:
            cure = "copy them from the repository, a hand-in's archive has none"
            cure += f", or train them: python -m labs.weights keep {name} RUN" if name in KEPT_HERE else ""
        raise ValueError(f"there are no weights {path}: {cure}")
    try:
        network = build(name, read_checkpoint(path))  # which compares checksums, as torch.load does not
        if not all(value.isfinite().all() for value in network.state_dict().values()):
            raise ValueError
        return network.to(device).eval()
    except Exception:  # another file may raise almost anything
        raise ValueError(f"{path} does not hold the weights of {name}: give a run's {file}") from None


@command
def main() -> None:
    parser = lab_parser("weights", __doc__)
    parser.add_argument("what", choices=["keep"])
    parser.add_argument("name", choices=KEPT_HERE)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    args = parser.parse_args()
    path, script, file = NETWORKS[args.name]
    with told():
        to_keep(args.run, script)
        load(args.name, args.run)  # it is such a network
        copy_whole(args.run / file, path)


if __name__ == "__main__":
    main()
