"""Writes labs/digit.html: draw a digit, and LeNet-5 reads it in your browser.

    python -m labs.digit_page

prints

    labs/digit.html: 61,706 weights, 346 KB

The page needs no other file and no network. It is labs/digit_page.html, where its forward pass can be read, with the
weights labs/weights/lenet.pth put in: whoever changes either makes it anew.
"""

import base64
import sys

import torch

from labs.feature_maps import ROOT, WEIGHTS, load_lenet
from lenet import LeNet5, count_parameters
from training import write_whole

TEMPLATE, PAGE = ROOT / "labs" / "digit_page.html", ROOT / "labs" / "digit.html"


def make_page(network: LeNet5) -> str:
    """The template with the numbers of `network` in the order of its `state_dict`, little-endian, as base64."""
    numbers = torch.cat([value.flatten() for value in network.state_dict().values()])
    text = base64.b64encode(numbers.numpy().astype("<f4").tobytes()).decode()
    return TEMPLATE.read_text(encoding="utf-8").replace("{{weights}}", text)


def main() -> None:
    try:
        network = load_lenet(LeNet5, WEIGHTS / "lenet.pth")
        page = make_page(network).encode()
        with write_whole(PAGE) as part:
            part.write_bytes(page)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{PAGE.relative_to(ROOT)}: {count_parameters(network):,} weights, {len(page) / 1000:.0f} KB")


if __name__ == "__main__":
    main()
