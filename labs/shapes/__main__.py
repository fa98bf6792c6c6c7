"""Pictures of grey discs with their masks, made as they are needed (the segmentation tutorial, section 1.1).

    python -m labs.shapes                              draws a picture and its mask in runs/shapes.png
    python -m labs.shapes --sigma 5 --count 30 --squares --rgb --nx 256 --seed 1
    python -m labs.shapes --out labs/shapes/shapes.png      README.md's

The generator stands in generator.py; what learns from its pictures, in labs/shapes_unet.
"""

from pathlib import Path

from labs.commands import drawing, lab_parser
from labs.shapes.generator import Shapes
from training import between, command, told


def plot_shapes(path: Path, generator: Shapes) -> None:
    """The tutorial's three panels: a grey picture, the same in colours, and where its shapes are."""
    pictures, masks = generator(1)
    panels = {
        "Original data": (pictures[0], {"cmap": "gray"}),
        "Original data in colours": (pictures[0], {}),  # those of the figure where it is grey
        "Ground truth": (masks[0].argmax(axis=-1), {}),
    }
    with drawing(path, 12, 4.3) as figure:
        for axes, (title, (shown, style)) in zip(figure.subplots(1, 3), panels.items(), strict=True):
            axes.imshow(shown, **style)
            axes.set_title(title)


@command
def main() -> None:
    parser = lab_parser("shapes", __doc__)
    add = parser.add_argument
    add("--sigma", type=between(0.0, 1000.0), default=20.0, help="the noise, in grey levels of 255 (default: 20)")
    add("--count", type=between(0, 1000), default=10, help="discs (default: 10)")
    add("--nx", type=between(41, 4096), default=128, help="pixels of a side (default: 128)")
    add("--squares", action="store_true", help="half as many squares on top, a class of their own")
    add("--rgb", action="store_true", help="in colours, from blue over green to red")
    add("--seed", type=between(0, 2**32 - 1), default=0, help="another picture (default: 0)")
    add("--out", type=Path, default=Path("runs/shapes.png"), help="(default: %(default)s)")
    args = parser.parse_args()
    options = {name: getattr(args, name) for name in ("sigma", "squares", "rgb", "seed")}
    with told():
        args.out.parent.mkdir(parents=True, exist_ok=True)
        plot_shapes(args.out, Shapes(args.nx, args.nx, args.count, **options))
    print(f"Written: {args.out}")


if __name__ == "__main__":
    main()
