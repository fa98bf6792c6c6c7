"""Writes labs/digit.html: draw a digit, and LeNet-5 reads it in your browser.

    python -m labs.digit_page

prints

    labs/digit.html: 61,706 weights, 366 KB

The page needs no other file and no network. It is page.html, beside this file, where its forward pass can be read, with
labs/handwriting.js, the ten digits and the limit of labs/handwriting.py, and the weights labs/weights/lenet.pth put in:
whoever changes one of these makes it anew.

    python -m labs.digit_page drawings      # needs Chromium and Playwright (labs/requirements-test.txt)

has the page make its pictures of some 700 digits drawn by a seed (drawings.py), and counts for each style how many the
networks read, into report/results/labs/drawings.csv.
"""

import base64
import shutil
import sys
from pathlib import Path

import torch
from torch import nn

from labs.commands import lab_parser
from labs.handwriting import SCRIPT, examples, named, read_limits, shares_of
from labs.weights import load
from lenet import count_parameters
from report.tables import RESULTS
from training import ROOT, Row, command, told, write_rows, write_whole

TEMPLATE, PAGE = Path(__file__).parent / "page.html", ROOT / "labs" / "digit.html"
DRAWINGS = RESULTS / "labs" / "drawings.csv"


def make_page(network: nn.Module) -> str:
    """The template with the numbers of `network` in the order of its `state_dict`, little-endian, as base64."""
    numbers = torch.cat([value.flatten() for value in network.state_dict().values()])
    parts = {
        "handwriting": SCRIPT.read_text(encoding="utf-8"),
        "sure": str(read_limits()["lenet"].probability),
        "digits": examples(),
        "weights": base64.b64encode(numbers.numpy().astype("<f4").tobytes()).decode(),
    }
    page = TEMPLATE.read_text(encoding="utf-8")
    for name, part in parts.items():
        page = page.replace(f"{{{{{name}}}}}", part)
    return page


@torch.inference_mode()
def score_drawings() -> list[Row]:
    """A row a style: how many drawings, and of these how many each network reads, misreads, and leaves open."""
    try:
        from playwright.sync_api import sync_playwright  # only this command needs it
    except ImportError:
        raise ValueError("this needs Playwright: pip install -r labs/requirements-test.txt") from None
    from labs.digit_page.drawings import drawings

    networks, limits = {name: load(name) for name in ("lenet", "lenet_original")}, read_limits()
    rows = []
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(chromium).exists():
            raise ValueError("this needs Chromium: apt install chromium, or playwright install chromium")
        page = playwright.chromium.launch(executable_path=chromium).new_page()
        page.goto(PAGE.as_uri())
        for style, drawn in drawings(seed=0).items():
            pictures = page.evaluate("all => all.map((strokes) => [...digitOf(strokes)])", [one for _, one in drawn])
            row: Row = {"style": style, "drawings": len(drawn)}
            for name, network in networks.items():
                scores = network(torch.tensor(pictures).view(-1, 1, 28, 28))
                answers = [named(shares, limits[name]) for shares in shares_of(scores, limits[name])]
                labels = [label for label, _ in drawn]
                row[f"{name}_right"] = sum(answer == [label] for answer, label in zip(answers, labels, strict=True))
                row[f"{name}_open"] = sum(len(answer) != 1 for answer in answers)
                row[f"{name}_wrong"] = len(drawn) - row[f"{name}_right"] - row[f"{name}_open"]
            rows.append(row)
    return rows


@command
def main() -> None:
    parser = lab_parser("digit_page", __doc__)
    parser.add_argument("what", nargs="?", choices=["page", "drawings"], default="page", help="(default: page)")
    what = parser.parse_args().what
    with told():
        if what == "drawings":
            rows = score_drawings()
            write_rows(DRAWINGS, rows)
            for row in rows:
                print(*row.values(), sep="\t")
            sys.exit()
        network = load("lenet")
        page = make_page(network).encode()
        with write_whole(PAGE) as part:
            part.write_bytes(page)
    print(f"{PAGE.relative_to(ROOT)}: {count_parameters(network):,} weights, {len(page) / 1000:.0f} KB")


if __name__ == "__main__":
    main()
