"""Writes labs/digit.html: draw a digit, and LeNet-5 reads it in your browser.

    python -m labs.digit_page

prints

    labs/digit.html: 61,706 weights, 346 KB

The page needs no other file and no network. It is page.html, beside this file, where its forward pass can be read, with
the weights labs/weights/lenet.pth put in: whoever changes either makes it anew.
"""

import base64
from pathlib import Path

import torch
from torch import nn

from labs.commands import lab_parser
from labs.weights import load
from lenet import count_parameters
from training import ROOT, command, told, write_whole

TEMPLATE, PAGE = Path(__file__).parent / "page.html", ROOT / "labs" / "digit.html"


def make_page(network: nn.Module) -> str:
    """The template with the numbers of `network` in the order of its `state_dict`, little-endian, as base64."""
    numbers = torch.cat([value.flatten() for value in network.state_dict().values()])
    text = base64.b64encode(numbers.numpy().astype("<f4").tobytes()).decode()
    return TEMPLATE.read_text(encoding="utf-8").replace("{{weights}}", text)


@command
def main() -> None:
    lab_parser("digit_page", __doc__).parse_args()
    with told():
        network = load("lenet")
        page = make_page(network).encode()
        with write_whole(PAGE) as part:
            part.write_bytes(page)
    print(f"{PAGE.relative_to(ROOT)}: {count_parameters(network):,} weights, {len(page) / 1000:.0f} KB")


if __name__ == "__main__":
    main()
