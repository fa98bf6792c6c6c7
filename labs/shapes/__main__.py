"""Pictures of grey discs with their masks, made as they are needed (the segmentation tutorial, section 1.1).

    python -m labs.shapes                    writes shapes.png beside this file

The generator stands in generator.py; what learns from its pictures, in labs/shapes_unet.
"""

from pathlib import Path

from labs.commands import drawing, lab_parser
from labs.shapes.generator import Shapes
from training import ROOT, command, told

FIGURE = Path(__file__).with_name("shapes.png")


def plot_shapes(path: Path, generator: Shapes) -> None:
    """The tutorial's three panels: a grey picture, the same in colours, and where its shapes are."""
    pictures, masks = generator(1)
    panels = {
        "Original data": (pictures[0], {"cmap": "gray"}),
        "Original data in colours": (pictures[0], {}),
        "Ground truth": (masks[0].argmax(axis=-1), {}),
    }
    with drawing(path, 12, 4.3) as figure:
        for axes, (title, (shown, style)) in zip(figure.subplots(1, 3), panels.items(), strict=True):
            axes.imshow(shown, **style)
            axes.set_title(title)


@command
def main() -> None:
    lab_parser("shapes", __doc__).parse_args()
    with told():
        plot_shapes(FIGURE, Shapes())
    print(f"Written: {FIGURE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
