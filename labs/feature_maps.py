"""What the layers of a network make of a picture, and how much of it each of their units sees (seed 001).

    python -m labs.feature_maps unet car.jpg --out runs/maps
    python -m labs.feature_maps lenet digit.png --out runs/maps --layer C3
    python -m labs.feature_maps cifar cat.jpg --out runs/maps --model runs/cifar10/cifar10.pth
    python -m labs.feature_maps cats_dogs cat.jpg --out runs/maps --model runs/resnet18/cats_dogs.pth

The first prints a line for each layer that has maps, and ends with

    up_conv4.3                       16x288x432      1    188              188
    final_conv                        1x288x432      1    188              188

its maps, how many pixels of the picture lie between two units, and how many rows of it the unit in the middle sees: by
the formula (beyond the edges too) and by its gradient. DIR gets these lines as fields.csv, and

    layers.png     the mean of every layer's maps, as the seed draws them
    LAYER.png      every map of one layer (--layer; else the first), a hundred a sheet; LAYER-2.png has the next
    kernels.png    the kernels of the first layer
    levels.png     low, middle and high: a few maps of an early, a middle and a late layer, and what one unit sees

The maps' height is computed by the formula as well, and compared with what it is.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor

from carvana import open_photograph
from infer_unet import network_size
from labs import cats_dogs_scores
from labs.cats_dogs_pictures import normalize, open_picture
from labs.cifar_networks import load_network
from labs.receptive_field import field_by_gradient, output_rows, receptive_field
from lenet import LeNet5, LeNet5Original
from training import Row, write_rows, write_whole
from unet import load_unet

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "labs" / "weights"
SHEET, ROWS = 100, 288  # pictures on a sheet; short side of a large photograph


@torch.inference_mode()
def layer_outputs(network: nn.Module, picture: Tensor) -> dict[str, Tensor]:
    """The output `[C, h, w]` of every layer that gives maps, by its name, in the order of the calls.

    `picture` is `[1, C, H, W]`, as the network takes it. Layers are the modules that have no parts.
    """
    outputs = {}
    for name, layer in network.named_modules():
        if not list(layer.children()):
            layer.register_forward_hook(  # a copy, since a ReLU may overwrite its input
                lambda _, __, output, name=name: outputs.update({name: output[0].clone()})
            )
    network(picture)
    return {name: output for name, output in outputs.items() if output.dim() == 3 and output.shape[1] > 1}


def fields(network: nn.Module, picture: Tensor, outputs: dict[str, Tensor]) -> list[Row]:
    """A row for each layer: its maps, and how much of the picture the unit in their middle sees."""
    rows = []
    for name, maps in outputs.items():
        row = maps.shape[1] // 2
        first, last = receptive_field(network, name, (row, row))
        step = (receptive_field(network, name, (row + 16, row + 16))[0] - first) / 16
        found = field_by_gradient(network, name, picture, row)
        if found != (max(0, first), min(picture.shape[2] - 1, last)):
            raise ValueError(f"{name}: the formula says rows {first} to {last}, the gradient {found[0]} to {found[1]}")
        if output_rows(network, name, picture.shape[2]) != maps.shape[1]:
            raise ValueError(f"{name} has {maps.shape[1]} rows, not as many as the formula says")
        shape = "x".join(map(str, maps.shape))
        seen = {"by_formula": last - first + 1, "by_gradient": found[1] - found[0] + 1}
        rows.append({"layer": name, "maps": shape, "step": f"{step:g}", **seen})
    return rows


def show(axes: Axes, picture: Tensor, title: str = "", cmap: str = "gray") -> None:
    """A map [h, w] or a kernel in colours [3, h, w], from its own darkest to its own brightest."""
    picture = (picture - picture.min()) / (picture.max() - picture.min()).clamp(min=1e-9)
    axes.imshow((picture.movedim(0, -1) if picture.dim() == 3 else picture).numpy(), cmap=cmap, vmin=0, vmax=1)
    axes.set_title(title, fontsize=8)


def draw_sheets(path: Path, heading: str, pictures: Sequence[Tensor], titles: Sequence[str] | None = None) -> None:
    """Pictures [h, w] or [3, h, w] with their titles or numbers; those after the first hundred on other sheets."""
    titles = titles or [str(number) for number in range(len(pictures))]
    for sheet, start in enumerate(range(0, len(pictures), SHEET), start=1):
        part = slice(start, start + SHEET)
        name, more = (path, "") if sheet == 1 else (path.with_stem(f"{path.stem}-{sheet}"), f", sheet {sheet}")
        draw_sheet(name, heading + more, pictures[part], titles[part])


def draw_sheet(path: Path, heading: str, pictures: Sequence[Tensor], titles: Sequence[str]) -> None:
    columns = min(10, max(4, round(len(pictures) ** 0.5)))
    rows = -(-len(pictures) // columns)
    height, width = pictures[0].shape[-2:]
    tall = rows * (1.5 * height / width + 0.3) + 0.5
    figure = Figure(figsize=(1.5 * columns, tall))  # no layout engine: with a hundred pictures it takes seconds
    figure.suptitle(heading)
    places = {"left": 0.01, "right": 0.99, "bottom": 0.1 / tall, "top": 1 - 0.6 / tall, "wspace": 0.05}
    for axes in figure.subplots(rows, columns, squeeze=False, gridspec_kw=places).flat:
        axes.axis("off")
    for axes, picture, title in zip(figure.axes, pictures, titles, strict=False):
        show(axes, picture, title)
    save(figure, path)


def draw_levels(path: Path, network: nn.Module, picture: Tensor, outputs: dict[str, Tensor]) -> None:
    """A row for an early, a middle and a late layer: the square that a unit in the middle sees, and six maps."""
    names = [name for name, maps in outputs.items() if len(maps) > 5]
    figure = Figure(figsize=(12, 3 * (1.7 * picture.shape[2] / picture.shape[3] + 0.3)), layout="constrained")
    for line, name in zip(figure.subplots(3, 7), (names[0], names[len(names) // 2 - 1], names[-1]), strict=True):
        maps = outputs[name]
        middle = [size // 2 for size in maps.shape[1:]]
        (top, bottom), (left, right) = (receptive_field(network, name, (place, place)) for place in middle)
        show(line[0], picture[0] if len(picture[0]) == 3 else picture[0, 0], f"{name}: a unit sees")
        line[0].add_patch(Rectangle((left - 0.5, top - 0.5), right - left + 1, bottom - top + 1, fill=False, ec="red"))
        liveliest = maps.flatten(1).std(dim=1).argsort(descending=True)[:6]
        for axes, index in zip(line[1:], liveliest, strict=False):
            show(axes, maps[index], f"map {index}")
        for axes in line:
            axes.axis("off")
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    with write_whole(path) as part:
        figure.savefig(part, dpi=110)


# The networks and their pictures


def digit(path: Path, size: int = 28) -> Tensor:
    """A picture as MNIST's digits are, [1, 1, 28, 28]: light on dark."""
    image = to_tensor(open_photograph(path).convert("L").resize((size, size)))[None]
    return image if image.mean() < 0.5 else 1 - image


def small_photograph(size: int) -> Callable[[Path], Tensor]:
    return lambda path: to_tensor(open_photograph(path).resize((size, size)))[None]


def large_photograph(path: Path) -> Tensor:
    """Nearly `ROWS` rows, or columns, whichever are fewer, and multiples of 16."""
    image = open_photograph(path)
    height, width = (16 * round(size / 16) for size in network_size(*image.size, ROWS))
    return to_tensor(image.resize((width, height)))[None]


def pet(path: Path) -> Tensor:
    return normalize(open_picture(path, 224)[None])


def load_cats_dogs(path: Path) -> nn.Module:
    """Any of the lab's networks, ResNets among them: the file says which."""
    return cats_dogs_scores.load_network(path, torch.device("cpu"))[0]


def load_lenet(kind: type[nn.Module], path: Path) -> nn.Module:
    network = kind()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise ValueError(f"there are no weights {path}") from None
    except Exception:  # torch.load raises almost anything for a damaged file
        raise ValueError(f"{path} does not hold the weights of a {kind.__name__}") from None
    return network


NETWORKS: dict[str, tuple[Callable[[Path], nn.Module], Path | None, Callable[[Path], Tensor]]] = {
    "lenet": (partial(load_lenet, LeNet5), WEIGHTS / "lenet.pth", digit),
    "lenet_original": (partial(load_lenet, LeNet5Original), WEIGHTS / "lenet_original.pth", digit),
    "unet": (partial(load_unet, device=torch.device("cpu")), ROOT / "model.pth", large_photograph),
    "cifar": (load_network, None, small_photograph(32)),
    "cats_dogs": (load_cats_dogs, WEIGHTS / "cats_dogs.pth", pet),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the sheets go")
    parser.add_argument("--layer", metavar="NAME", help="of which to show every map (default: the first)")
    parser.add_argument("--model", type=Path, metavar="FILE", help="weights (default: those in the repository, if any)")
    args = parser.parse_args()
    load, shipped, prepare = NETWORKS[args.network]
    try:
        if not (args.model or shipped):
            raise ValueError(f"the weights of {args.network} are too large for the repository: give yours as --model")
        network, picture = load(args.model or shipped).eval(), prepare(args.picture)
        outputs = layer_outputs(network, picture)
        layer = args.layer or next(iter(outputs))
        if layer not in outputs:
            raise ValueError(f"{args.network} has no layer {layer} with maps: choose of {', '.join(outputs)}")
        args.out.mkdir(parents=True, exist_ok=True)
        means = [maps.mean(dim=0) for maps in outputs.values()]
        draw_sheets(args.out / "layers.png", "The mean of each layer's maps", means, list(outputs))
        draw_sheets(args.out / f"{layer}.png", f"The maps of {layer}", outputs[layer])
        kernels = next(weight for weight in network.state_dict().values() if weight.dim() == 4)
        if kernels.shape[1] != 3:
            kernels = kernels.mean(dim=1)
        draw_sheets(args.out / "kernels.png", "The kernels of the first layer", kernels)
        draw_levels(args.out / "levels.png", network, picture, outputs)
        rows = fields(network, picture, outputs)
        write_rows(args.out / "fields.csv", rows)
        print(f"{'layer':30} {'maps':>12} {'step':>6} {'sees':>6} {'by its gradient':>16}")
        for row in rows:
            print(f"{row['layer']:30} {row['maps']:>12} {row['step']:>6} {row['by_formula']:6} {row['by_gradient']:16}")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
