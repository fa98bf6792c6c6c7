"""What the layers of a network make of a picture, and how much of it each of their units sees (the CIFAR tutorial).

    python -m labs.feature_maps unet car.jpg --out runs/maps
    python -m labs.feature_maps lenet runs/digit.png --out runs/maps --layer C3
    python -m labs.feature_maps cifar car.jpg --out runs/maps
    python -m labs.feature_maps cats_dogs car.jpg --out runs/maps --model runs/resnet18
    python -m labs.feature_maps keep                what README.md shows: LeNet-5's fields, a classifier's levels

(`python -m labs.digit_strips lesson` writes runs/digit.png.)

The first prints a line for each layer that has maps, and ends with

    up_conv4.3                       16x288x432      1    188              188
    final_conv                        1x288x432      1    188              188

its maps, how many pixels of the picture lie between two units, and how many rows of it the unit in the middle sees: by
the formula (beyond the edges too) and by its gradient. DIR gets these lines as fields.csv, and

    layers.png     the mean of every layer's maps, as the tutorial draws them
    LAYER.png      every map of one layer (--layer; else the first), a hundred a sheet; LAYER-2.png has the next
    kernels.png    the kernels of the first layer
    levels.png     low, middle and high: a few maps of an early, a middle and a late layer, and what one unit sees

The maps' height is computed by the formula as well, and compared with what it is.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from infer_unet import network_size
from labs.cats_dogs.pictures import normalize, open_picture
from labs.cifar10.pictures import open_small
from labs.commands import drawing, lab_parser
from labs.feature_maps.receptive_field import field_by_gradient, output_rows, receptive_field
from labs.weights import load
from pictures import open_photograph
from report.tables import RESULTS
from training import ROOT, Row, command, told, write_rows

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


def show(axes: Any, picture: Tensor, title: str = "", cmap: str = "gray") -> None:
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
    places = {"left": 0.01, "right": 0.99, "bottom": 0.1 / tall, "top": 1 - 0.6 / tall, "wspace": 0.05}
    # No layout engine: with a hundred pictures it takes seconds.
    with drawing(path, 1.5 * columns, tall, dpi=110, layout=None) as figure:
        figure.suptitle(heading)
        for axes in figure.subplots(rows, columns, squeeze=False, gridspec_kw=places).flat:
            axes.axis("off")
        for axes, picture, title in zip(figure.axes, pictures, titles, strict=False):
            show(axes, picture, title)


def draw_levels(path: Path, network: nn.Module, picture: Tensor, outputs: dict[str, Tensor]) -> None:
    """A row for an early, a middle and a late layer: the square that a unit in the middle sees, and six maps."""
    from matplotlib.patches import Rectangle  # late, as in `drawing`

    names = [name for name, maps in outputs.items() if len(maps) > 5 and maps.shape[1] > 1]
    levels = names[0], names[len(names) // 2 - 1], names[-1]
    with drawing(path, 12, 3 * (1.7 * picture.shape[2] / picture.shape[3] + 0.5), dpi=110) as figure:
        for line, name in zip(figure.subplots(3, 7), levels, strict=True):
            maps = outputs[name]
            middle = [size // 2 for size in maps.shape[1:]]
            sides = [receptive_field(network, name, (place, place)) for place in middle]
            (top, bottom), (left, right) = (  # of it, what lies in the picture
                (max(0, first), min(size - 1, last))
                for (first, last), size in zip(sides, picture.shape[2:], strict=True)
            )
            show(line[0], picture[0] if len(picture[0]) == 3 else picture[0, 0], f"{name}\na unit sees")
            seen = (left - 0.5, top - 0.5), right - left + 1, bottom - top + 1
            line[0].add_patch(Rectangle(*seen, fill=False, ec="red", lw=1.5, clip_on=False))
            liveliest = maps.flatten(1).std(dim=1).argsort(descending=True)[:6]
            for axes, index in zip(line[1:], liveliest, strict=False):
                show(axes, maps[index], f"map {index}")
            for axes in line:
                axes.axis("off")


# The networks and their pictures


def as_tensor(picture: Image.Image) -> Tensor:
    """A Pillow picture as `[1, C, H, W]` in [0, 1]."""
    pixels = torch.from_numpy(np.array(picture)) / 255
    return pixels.view(1, picture.height, picture.width, -1).permute(0, 3, 1, 2)


def digit(path: Path, size: int = 28) -> Tensor:
    """A picture as MNIST's digits are, [1, 1, 28, 28]: light on dark."""
    image = as_tensor(open_photograph(path).convert("L").resize((size, size)))
    return image if image.mean() < 0.5 else 1 - image


def large_photograph(path: Path) -> Tensor:
    """Nearly `ROWS` rows, or columns, whichever are fewer, and multiples of 16."""
    image = open_photograph(path)
    height, width = (max(16, 16 * round(size / 16)) for size in network_size(*image.size, ROWS))
    return as_tensor(image.resize((width, height)))


PICTURES: dict[str, Callable[[Path], Tensor]] = {
    "lenet": digit,
    "lenet_original": digit,
    "unet": large_photograph,
    "cifar": lambda path: open_small(path)[None] / 255,
    "cats_dogs": lambda path: normalize(open_picture(path, 224)[None]),
}


def draw_all(out: Path, name: str, network: nn.Module, picture: Tensor, layer: str | None) -> list[Row]:
    """Writes all sheets and the fields to `out`, and returns the fields."""
    outputs = layer_outputs(network, picture)
    layer = layer or next(iter(outputs))
    if layer not in outputs:
        raise ValueError(f"{name} has no layer {layer} with maps: choose of {', '.join(outputs)}")
    out.mkdir(parents=True, exist_ok=True)
    means = [maps.mean(dim=0) for maps in outputs.values()]
    draw_sheets(out / "layers.png", "The mean of each layer's maps", means, list(outputs))
    draw_sheets(out / f"{layer}.png", f"The maps of {layer}", outputs[layer])
    kernels = next(weight for weight in network.state_dict().values() if weight.dim() == 4)
    if kernels.shape[1] != 3:
        kernels = kernels.mean(dim=1)
    draw_sheets(out / "kernels.png", "The kernels of the first layer", kernels)
    draw_levels(out / "levels.png", network, picture, outputs)
    rows = fields(network, picture, outputs)
    write_rows(out / "fields.csv", rows)
    return rows


def keep() -> None:
    """Makes what README.md shows: the fields of LeNet-5, for which any picture does, and a classifier's levels."""
    digit, car = torch.zeros(1, 1, 28, 28), PICTURES["cifar"](ROOT / "car.jpg")
    lenet, cifar = load("lenet"), load("cifar")
    write_rows(RESULTS / "labs" / "fields_lenet.csv", fields(lenet, digit, layer_outputs(lenet, digit)))
    draw_levels(Path(__file__).with_name("levels.png"), cifar, car, layer_outputs(cifar, car))


@command
def main() -> None:
    parser = lab_parser("feature_maps", __doc__)
    parser.add_argument("network", choices=[*PICTURES, "keep"])
    parser.add_argument("picture", type=Path, nargs="?")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the sheets go")
    parser.add_argument("--layer", metavar="NAME", help="of which to show every map (default: the first)")
    parser.add_argument("--model", type=Path, metavar="FILE", help="weights (default: those in the repository)")
    args = parser.parse_args()
    if args.network != "keep" and not (args.picture and args.out):
        parser.error("the following arguments are required: picture, --out")
    with told():
        if args.network == "keep":
            return keep()
        network, picture = load(args.network, args.model), PICTURES[args.network](args.picture)
        rows = draw_all(args.out, args.network, network, picture, args.layer)
    print(f"{'layer':30} {'maps':>12} {'step':>6} {'sees':>6} {'by its gradient':>16}")
    for row in rows:
        print(f"{row['layer']:30} {row['maps']:>12} {row['step']:>6} {row['by_formula']:6} {row['by_gradient']:16}")


if __name__ == "__main__":
    main()
