"""Draws the figures of the README and the report from report/results/.

    python -m report.figures

`lenet_curves.png`: loss and accuracy of the five seeds. `lenet_digits.png`: digits of the test set and what the network
of seed 0 read, which is kept in report/results/lenet/modern-seed0-read.txt and made anew where its weights are at hand.
`unet_curves.png`: the training of `model.pth`. `car_overlay.jpg`: the car that it finds in `car.jpg`.
"""

import csv
import sys
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from carvana import open_photograph
from infer_unet import overlay, predict_mask
from lenet import LeNet5
from train_lenet import load_mnist
from training import write_whole
from unet import load_unet

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "report" / "results"
FIGURES = ROOT / "report" / "figures"
WEIGHTS = ROOT / "runs" / "report" / "modern-seed0" / "lenet.pth"
READ = RESULTS / "lenet" / "modern-seed0-read.txt"


def read_rows(name: str) -> list[dict[str, str]]:
    with (RESULTS / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw_curves(path: Path) -> None:
    """Each curve is the mean of the seeds, in a band from the lowest to the highest of them."""
    histories = [read_rows(f"lenet/modern-seed{seed}.csv") for seed in range(5)]
    epochs = [int(row["epoch"]) for row in histories[0]]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axes, title in zip(figure.subplots(1, 2), ("Loss", "Accuracy"), strict=True):
        for label, short in (("training, with distortions, while it learned", "train"), ("test", "test")):
            column = f"{short}_{title.lower()}"
            curves = torch.tensor([[float(row[column]) for row in history] for history in histories])
            (line,) = axes.plot(epochs, curves.mean(dim=0), marker="o", markersize=3, label=label)
            axes.fill_between(epochs, curves.amin(dim=0), curves.amax(dim=0), color=line.get_color(), alpha=0.2, lw=0)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    # The first epoch is so far from the others that on a full linear scale nothing could be told apart.
    loss, accuracy = figure.axes
    loss.set_yscale("log")
    loss.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5, 1], ["0.02", "0.05", "0.1", "0.2", "0.5", "1"], minor=False)
    loss.minorticks_off()
    accuracy.set_ylim(0.94, 1)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(*loss.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    with write_whole(path) as part:
        figure.savefig(part, dpi=150)


@torch.inference_mode()
def keep_what_was_read(weights: Path) -> None:
    """Writes what the network of `weights` reads in the 10,000 test digits, in their order, a hundred a line."""
    images, _ = load_mnist(ROOT / "data", train=False)
    model = LeNet5()
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    read = "".join(map(str, model(images).argmax(dim=1).tolist()))
    with write_whole(READ) as part:
        part.write_text("".join(read[i : i + 100] + "\n" for i in range(0, len(read), 100)))


def draw_digits(path: Path, shown: int = 12, misread: int = 4) -> None:
    """Draws the first digits of the test set that were read right, and the first that were not."""
    images, labels = load_mnist(ROOT / "data", train=False)
    read = torch.tensor([int(digit) for digit in READ.read_text().replace("\n", "")])
    right, wrong = (torch.nonzero(equal)[:, 0] for equal in (read == labels, read != labels))
    indices = torch.cat([right[: shown - misread], wrong[:misread]])
    figure = Figure(figsize=(10, 1.3), layout="constrained")
    for axes, index in zip(figure.subplots(1, shown), indices, strict=True):
        axes.imshow(images[index, 0], cmap="gray_r")
        axes.axis("off")
        if read[index] == labels[index]:
            axes.set_title(f"{read[index]}", fontsize=12)
        else:
            axes.set_title(f"{read[index]} (is {labels[index]})", fontsize=12, color="tab:red")
    with write_whole(path) as part:
        figure.savefig(part, dpi=150)


def draw_unet_curves(path: Path) -> None:
    """The loss of every step, smoothed, by run and size; and Dice on the selection cars after each epoch."""
    losses, history = read_rows("unet/losses.csv"), read_rows("unet/history.csv")
    values = torch.tensor([float(row["loss"]) for row in losses])
    stages = [(row["run"], row["size"]) for row in losses]
    changes = [0] + [step for step in range(1, len(stages)) if stages[step] != stages[step - 1]] + [len(stages)]
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for start, end in pairwise(changes):
        window = min(50, end - start)
        smooth = values[start:end].unfold(0, window, 1).mean(dim=1)
        left.plot(range(start + window, end + 1), smooth, color="tab:blue", lw=1)
        left.axvline(start, color="0.8", lw=0.8)
        left.text(
            (start + end) / 2, 0.97, stages[start][1], transform=left.get_xaxis_transform(), ha="center", va="top"
        )
    left.set(title="Training loss, mean of 50 steps, by short side", xlabel="step", yscale="log")
    epochs, dice = [int(row["epoch"]) for row in history], [float(row["dice"]) for row in history]
    right.plot(epochs, dice, marker="o", markersize=4, color="tab:blue")
    for row, next_row in pairwise(history):
        if (row["run"], row["size"]) != (next_row["run"], next_row["size"]):
            right.axvline(int(row["epoch"]) + 0.5, color="0.8", lw=0.8)
    right.set(title="Dice on the selection cars, each at its stage's size", xlabel="epoch")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with write_whole(path) as part:
        figure.savefig(part, dpi=150)


def draw_overlay(path: Path) -> None:
    """What infer_unet.py makes of the drawn car.jpg, at half its size."""
    image = open_photograph(ROOT / "car.jpg")
    mask = predict_mask(load_unet(ROOT / "model.pth", torch.device("cpu")), image)
    with write_whole(path) as part:
        overlay(image, mask).reduce(2).save(part, quality=90)


def main() -> None:
    FIGURES.mkdir(parents=True, exist_ok=True)
    try:
        if WEIGHTS.exists():
            keep_what_was_read(WEIGHTS)
        draw_digits(FIGURES / "lenet_digits.png")
        draw_curves(FIGURES / "lenet_curves.png")
        draw_unet_curves(FIGURES / "unet_curves.png")
        draw_overlay(FIGURES / "car_overlay.jpg")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}: make the runs first, see report/README.md")


if __name__ == "__main__":
    main()
