"""Draws the figures of the README and the report from report/results/, in seconds.

    python -m report.figures            all of them
    python -m report.figures ladder     one, by its file's name in report/figures/

What the networks see is drawn from the weights in the repository, and `both.jpg` from what the network of seed 0
read, which is kept in report/results/lenet/modern-seed0-read.txt and made anew where its weights are at hand.
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, mode
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter
from torch import Tensor, nn

from infer_unet import overlay, predict_mask
from labs.weights import load
from pictures import open_photograph
from report import tables
from report.lenet_experiments import CHOOSING_SEEDS, attacked, lead, noisy
from report.tables import RESULTS, Rows, grouped, matching
from report.unet_experiments import mask_at
from train_lenet import load_mnist, random_affine
from training import ROOT, command, epoch_generator, told, write_whole

FOLDER = ROOT / "report" / "figures"
RUN_OF_SEED_0 = ROOT / "runs" / "report" / "modern-seed0" / "lenet.pth"
READ = RESULTS / "lenet" / "modern-seed0-read.txt"


def read_rows(name: str, **wanted: Any) -> Rows:
    """The rows of a file of results, such as "unet/history", with these settings."""
    return matching(tables.read_rows(RESULTS / f"{name}.csv", needed=True), wanted)


def column(rows: Rows, name: str) -> list[float]:
    return [float(row[name]) for row in rows]


def draw_curves(figure: Figure) -> None:
    """Today's network above, that of 1998 below; the mean of the seeds in a band from the lowest to the highest."""
    figure.set_size_inches(10, 6.6)
    for row, (name, year) in zip(figure.subplots(2, 2), (("modern", "today"), ("original", "1998")), strict=True):
        histories = [read_rows(f"lenet/{name}-seed{seed}") for seed in range(5)]
        epochs = column(histories[0], "epoch")
        for axes, title in zip(row, ("Loss", "Accuracy"), strict=True):
            for label, short in (("training, with distortions, while it learned", "train"), ("test", "test")):
                curves = np.array([column(history, f"{short}_{title.lower()}") for history in histories])
                (line,) = axes.plot(epochs, curves.mean(axis=0), marker="o", markersize=3, label=label)
                low, high = curves.min(axis=0), curves.max(axis=0)
                axes.fill_between(epochs, low, high, color=line.get_color(), alpha=0.2, lw=0)
            axes.set(title=f"{title}, {year}", xlabel="epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.3)
        # The first epoch is so far from the others that on a full linear scale nothing could be told apart.
        loss, accuracy = row
        loss.set_yscale("log")
        loss.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator(), major_formatter="{x:g}")
        accuracy.set_ylim(0.94, 1)
        accuracy.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(*loss.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)


@torch.inference_mode()
def keep_what_was_read(weights: Path) -> None:
    """Writes what the network of `weights` reads in the 10,000 test digits, in their order, a hundred a line."""
    images, _ = load_mnist(ROOT / "data", train=False)
    read = "".join(map(str, load("lenet", weights)(images).argmax(dim=1).tolist()))
    with write_whole(READ) as part:
        part.write_text("".join(read[i : i + 100] + "\n" for i in range(0, len(read), 100)))


def draw_both(figure: Figure, shown: int = 20, misread: int = 4) -> None:
    """The README's picture: test digits and what was read, the wrong ones last; and the car found in `car.jpg`."""
    figure.set_size_inches(10, 3.5)
    images, labels = load_mnist(ROOT / "data", train=False)
    read = torch.tensor([int(digit) for digit in READ.read_text().replace("\n", "")])
    right, wrong = (torch.nonzero(equal)[:, 0] for equal in (read == labels, read != labels))
    indices = torch.cat([right[: shown - misread], wrong[:misread]])
    digits, car = figure.subfigures(1, 2, width_ratios=(1, 1))
    for axes, index in zip(digits.subplots(4, 5).flat, indices, strict=True):
        axes.imshow(images[index, 0].numpy(), cmap="gray_r")
        axes.axis("off")
        if read[index] == labels[index]:
            axes.set_title(f"{read[index]}", fontsize=11)
        else:
            axes.set_title(f"{read[index]} (is {labels[index]})", fontsize=11, color="tab:red")
    image = open_photograph(ROOT / "car.jpg")
    mask = predict_mask(load("unet"), image)
    axes = car.subplots()
    axes.imshow(overlay(image, mask))
    axes.axis("off")


def name_stage(axes: Axes, x: float, name: str) -> None:
    axes.text(x, 0.97, name, transform=axes.get_xaxis_transform(), ha="center", va="top", fontsize=9)


def draw_unet_curves(figure: Figure) -> None:
    """The loss of every step, smoothed, by run and size; and Dice on the selection cars after each epoch."""
    losses, history = read_rows("unet/losses"), read_rows("unet/history")
    values = torch.tensor(column(losses, "loss"))
    stages = [(row["run"], row["size"]) for row in losses]
    changes = [0] + [step for step in range(1, len(stages)) if stages[step] != stages[step - 1]] + [len(stages)]
    figure.set_size_inches(10, 4.4)
    left, right = figure.subplots(1, 2)
    for start, end in pairwise(changes):
        window = min(50, end - start)
        smooth = values[start:end].unfold(0, window, 1).mean(dim=1).numpy()
        left.plot(range(start + window, end + 1), smooth, color="tab:blue", lw=1)
        left.axvline(start, color="0.8", lw=0.8, zorder=0)
        name_stage(left, (start + end) / 2, stages[start][1])
    left.set(title="Training loss, mean of 50 steps, by short side", xlabel="step", yscale="log", ylim=(0.012, 2))
    left.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator(), major_formatter="{x:g}")
    left.xaxis.set_major_locator(MaxNLocator(5))
    for label, runs in {"two views of each car": "12", "other photographs: 28, drawn by lot": "3"}.items():
        own = [row for row in history if row["run"] in runs]
        right.plot(column(own, "epoch"), column(own, "dice"), marker="o", markersize=5, label=label)
    for stage, own in grouped(history, ("run", "size")).items():
        epochs = column(own, "epoch")
        right.axvline(epochs[0] - 0.5, color="0.8", lw=0.8, zorder=0)
        name_stage(right, mean(epochs), stage[1])
    right.set_ylim(top=0.996)
    right.set(title="Dice on the selection cars, at the stage's size", xlabel="epoch")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend(loc="lower right", frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.3)


def draw_mask(figure: Figure) -> None:
    """The coursework's two panels, of `car.jpg`."""
    figure.set_size_inches(10, 3.6)
    image = open_photograph(ROOT / "car.jpg")
    mask = predict_mask(load("unet"), image)
    for axes, title, picture in zip(figure.subplots(1, 2), ("Input image", "Mask"), (image, mask == 0), strict=True):
        axes.imshow(picture, cmap="gray")
        axes.set(title=title, xticks=[], yticks=[])


def draw_unet_place(figure: Figure) -> None:
    """The drawn car's outlines, at roof and wheels, in three masks that differ in where the scores were laid."""
    figure.set_size_inches(10, 2.3)
    image, model = open_photograph(ROOT / "car.jpg"), load("unet")
    masks = [mask_at(model, image, place) for place in ("padded", "centred", "stretched")]
    rows, columns = np.nonzero(masks[0])
    middle = (columns.min() + columns.max()) // 2
    colors = ("limegreen", "tab:orange", "tab:red")
    views = {"roof": (middle, rows.min()), "wheels": (columns.min() + (columns.max() - columns.min()) // 5, rows.max())}
    for axes, (name, (x, y)) in zip(figure.subplots(1, 2), views.items(), strict=True):
        axes.imshow(image)
        for mask, color in zip(masks, colors, strict=True):
            axes.contour(mask, levels=[0.5], colors=[color], linewidths=1.5)
        axes.set(title=name, xlim=(x - 130, x + 130), ylim=(y + 45, y - 45), xticks=[], yticks=[])
    lines = [Line2D([], [], color=color) for color in colors]
    labels = ("padded", "not padded, placed at the centre", "not padded, stretched")
    figure.legend(lines, labels, loc="outside upper center", ncols=3, frameon=False)


def draw_unet_rows(figure: Figure) -> None:
    """Which of 572 input rows the two maps cover that each CropAndConcat joins, if nothing was padded."""
    figure.set_size_inches(10, 3.2)
    axes = figure.subplots()
    heights = [572 // 2**level for level in range(5)]  # of the contracting path's maps, the last the deepest
    for place, level in enumerate((3, 2, 1, 0)):
        row = 2**level  # of the input, in one row of these maps
        kept = heights[4] * 2 ** (4 - level)
        first = round((heights[level] - kept) / 2)
        y = 3 * place
        axes.barh(y, heights[level] * row, height=0.8, color="lightgray")
        axes.barh(y, kept * row, left=first * row, height=0.8, color="tab:blue")
        axes.barh(y + 0.9, kept * row, height=0.8, color="tab:orange")
        axes.text(first * row + 6, y, f"from row {first * row}", va="center", color="white", fontsize=9)
        axes.text(6, y + 0.9, "from row 0", va="center", color="white", fontsize=9)
        axes.text(-6, y + 0.45, f"{heights[level]} and {kept} rows", va="center", ha="right", fontsize=9)
    axes.set(xlim=(-1, 573), yticks=[], xlabel="row of the input")
    axes.set_title("572 rows, not padded: what each CropAndConcat joins")
    axes.invert_yaxis()
    axes.spines[["top", "left", "right"]].set_visible(False)
    colors = {"skip, cut off around its centre": "tab:blue", "cut off": "lightgray", "path from below": "tab:orange"}
    handles = [Line2D([], [], color=color, lw=8) for color in colors.values()]
    figure.legend(handles, colors, loc="outside lower center", ncols=3, frameon=False)


# The networks


LENET = [  # map or unit: how many, side in pixels (0: single units), today, in 1998
    ("input", 1, 28, "standardized", "framed to\n32×32"),
    ("C1", 6, 28, "5×5,\npadded by 2", "5×5,\ntanh"),
    ("S2", 6, 14, "largest of\n2×2, ReLU", "weighted sum\nof 2×2, tanh"),
    ("C3", 16, 10, "5×5, sees\nall 6 maps", "5×5, sees\n3 to 6, tanh"),
    ("S4", 16, 5, "largest of\n2×2, ReLU", "weighted sum\nof 2×2, tanh"),
    ("C5", 120, 0, "sees all 400,\nReLU", "sees all 400,\ntanh"),
    ("F6", 84, 0, "sees all 120,\nReLU", "sees all 120,\ntanh"),
    ("output", 10, 0, "sees all 84", "distances\nfrom 10 codes"),
]


def draw_lenet(axes: Axes) -> None:
    """LeNet-5's maps, drawn to scale, and under them how each layer is made, today and in 1998."""
    axes.set(xlim=(-1, 7.55), ylim=(-1.3, 1.55), aspect="equal")
    axes.axis("off")
    for x, (name, count, side, today, then) in enumerate(LENET):
        size = "×".join([str(side)] * 2) if side else "units"
        axes.text(x, 1.32, name, ha="center", fontweight="bold")
        axes.text(x, 1.12, f"{count} × {size}" if side else f"{count} {size}", ha="center", fontsize=9)
        width, shown = (side / 45, min(count, 6)) if side else (0.1, 1)
        height = width if side else 0.15 + count / 130
        for behind in reversed(range(shown)):
            moved = 0.035 * (behind - (shown - 1) / 2)
            corner = (x - width / 2 + moved, 0.5 - height / 2 + moved)
            color = "white" if name == "input" else "#cfe2f3"
            axes.add_patch(Rectangle(corner, width, height, facecolor=color, edgecolor="tab:blue", lw=0.9))
        axes.text(x, -0.4, today, ha="center", va="center", fontsize=9)
        axes.text(x, -0.95, then, ha="center", va="center", fontsize=9)
    for y, year in ((-0.4, "today"), (-0.95, "1998")):
        axes.text(-0.95, y, year, va="center", fontweight="bold")
        axes.axhline(y + 0.27, color="0.8", lw=0.8)


STEPS = {  # of the U-Net: arrows by their colours
    "0.35": "two 3×3 convolutions, ReLU after each",
    "tab:red": "2×2 max-pooling",
    "tab:green": "2×2 transposed convolution",
    "tab:blue": "CropAndConcat",
    "tab:purple": "1×1 convolution",
}


def draw_unet(axes: Axes) -> None:
    """The U, level by level: the deeper, the smaller are a level's maps (a box's height), and the more (its width)."""
    axes.set(xlim=(-1.2, 11.5), ylim=(-4.5, 0.95))
    axes.axis("off")

    def width(level: int) -> float:
        return 0.1 * 1.45**level

    def top(level: int) -> float:
        return -level + 0.33 * 0.8**level

    def bottom(level: int) -> float:
        return -level - 0.33 * 0.8**level

    def box(x: float, level: int, color: str = "0.75", channels: float = 1) -> None:
        wide, high = channels * width(level), top(level) - bottom(level)
        axes.add_patch(Rectangle((x - wide / 2, bottom(level)), wide, high, fc=color, ec="white", lw=0.5))

    def arrow(start: tuple[float, float], end: tuple[float, float], color: str) -> None:
        style = {"arrowstyle": "-|>", "color": color, "lw": 1.5, "shrinkA": 2, "shrinkB": 2}
        axes.annotate("", end, start, arrowprops=style)

    def name(x: float, level: int, text: str, below: bool = False) -> None:
        y, side = (bottom(level) - 0.05, "top") if below else (top(level) + 0.05, "bottom")
        axes.text(x, y, text, ha="center", va=side, fontsize=9, linespacing=1.05)

    for level in range(5):
        half, channels = width(level) / 2, f"{16 * 2**level}\n({64 * 2**level})"
        box(level, level, channels=0.5)
        size = f"{576 // 2**level}×{864 // 2**level}"
        axes.text(level - half / 2 - 0.12, -level, size, ha="right", va="center", fontsize=9)
        if level == 4:  # the middle
            arrow((4 + half / 2, -4), (6 - half, -4), "0.35")
            box(6, 4)
            name(6, 4, channels, below=True)
            break
        down, concat, up = level + 1, 9 - level, 10 - level  # the columns of this level's other maps
        arrow((level + half / 2, -level), (down - half, -level), "0.35")
        box(down, level, "#7fb2d9")
        name(down, level, channels)
        arrow((down, bottom(level)), (down, top(level + 1)), "tab:red")
        arrow((down + half, -level), (concat - 2 * half, -level), "tab:blue")
        arrow((concat - half / 2, top(level + 1)), (concat - half / 2, bottom(level)), "tab:green")
        box(concat - half, level, "#90c990")  # first, as in CropAndConcat
        box(concat + half, level, "#7fb2d9")
        name(concat, level, f"2×{16 * 2**level}\n(2×{64 * 2**level})")
        arrow((concat + 2 * half, -level), (up - half, -level), "0.35")
        box(up, level)
        name(up, level, channels, below=True)
    arrow((10 + width(0) / 2, 0), (11 - width(0) / 4, 0), "tab:purple")
    box(11, 0, "#c9a7e0", channels=0.5)
    name(0, 0, "photograph\n3")
    name(11, 0, "scores\n1")
    lines = [Line2D([], [], color=color, lw=2) for color in STEPS]
    axes.legend(lines, STEPS.values(), loc="lower left", fontsize=9, frameon=False)


def draw_architectures(figure: Figure) -> None:
    """LeNet-5 above, the U-Net below."""
    figure.set_size_inches(10, 8.4)
    above, below = figure.subplots(2, 1, height_ratios=(3.4, 5))
    draw_lenet(above)
    draw_unet(below)
    above.set_title("LeNet-5", fontweight="bold")
    below.set_title("U-Net, 16 base channels as in model.pth (64 in the coursework), input 576×864", fontweight="bold")


# The experiments


def error_axis(axes: Axes, title: str, xlabel: str) -> None:
    """A logarithmic axis of errors: what halves them is as long a way everywhere."""
    axes.set(title=title, xlabel=xlabel, yscale="log")
    axes.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator(), major_formatter="{x:g}%")
    axes.grid(alpha=0.3)


def plot_error(axes: Axes, x: Sequence[Any], rows: Rows, label: str, **style: Any) -> None:
    """The error of test digits in rows of means, in percent, in a band as wide as its 95% interval."""
    error = np.array([100 - 100 * value for value in column(rows, "test_accuracy")])
    interval = np.array([100 * float(row["test_accuracy_interval"] or 0) for row in rows])
    (line,) = axes.plot(x, error, marker="o", markersize=4, label=label, **style)
    low = np.maximum(error - interval, error / 3)  # an interval that reaches 0 would have no end on a logarithmic axis
    axes.fill_between(x, low, error + interval, color=line.get_color(), alpha=0.2, lw=0)


CHANGES = {
    "nothing": "1998",
    "recipe": "AdamW,\none cycle",
    "ranges": "pixels' range,\nfirst weights",
    "activation": "ReLU",
    "pooling": "max-\npooling",
    "table": "full C3",
    "output": "linear,\ncross-\nentropy",
    "distortions": "distortions",
}
LEARNED = 10.0  # percent of error; a seed beyond it is off the axis of the ladder


def chosen_rows(rows: Rows) -> Rows:
    """Of a rung's rows those at the rate that was chosen: every seed has it, and the first ones read most with it."""

    def score(own: Rows) -> tuple[int, float]:
        return len(own), mean(column(own[:CHOOSING_SEEDS], "validation_accuracy"))

    return max((sorted(own, key=lambda row: row["seed"]) for own in grouped(rows, ("lr",)).values()), key=score)


def draw_ladder(figure: Figure) -> None:
    """One line forward and one backward; both begin with the network of 1998 and end with today's."""
    figure.set_size_inches(10, 7)
    rungs = {key: chosen_rows(own) for key, own in grouped(read_rows("experiments/ladder"), ("order", "rung")).items()}
    forward, backward = (
        [rungs[key] for key in sorted(rungs, key=lambda key: int(key[1])) if key[0] == order]
        for order in ("forward", "backward")
    )
    last = [{**row, "changed": forward[1][0]["changed"]} for row in forward[-1]]  # it closes the backward order too
    orders = {"the recipe first": forward, "distortions first": [forward[0], *backward, last]}
    for axes, color, (title, line) in zip(
        figure.subplots(2, 1, sharey=True), ("tab:blue", "tab:orange"), orders.items(), strict=True
    ):
        names = [CHANGES[own[0]["changed"]] for own in line]
        errors = [[100 - 100 * value for value in column(own, "test_accuracy")] for own in line]
        learned = [[error for error in own if error <= LEARNED] for own in errors]
        axes.plot([mean(own) if own else float("nan") for own in learned], color=color, zorder=1)
        for x, (own, on_axis) in enumerate(zip(errors, learned, strict=True)):
            axes.scatter(np.linspace(x - 0.08, x + 0.08, len(on_axis)), on_axis, s=22, color=color, edgecolor="white")
            if beyond := [error for error in own if error > LEARNED]:
                ends = dict.fromkeys(f"{error:.0f}" for error in (min(beyond), max(beyond)))
                label = f"{len(beyond)} of {len(own)}:\n{' to '.join(ends)}%"
                axes.plot(x, 1.35 * LEARNED, "x", color="tab:red", ms=8, mew=2)
                axes.text(x + 0.1, 1.35 * LEARNED, label, color="tab:red", va="center", fontsize=9)
        error_axis(axes, f"From 1998 to today, {title}", "")
        axes.axhspan(LEARNED, 1.9 * LEARNED, color="0.95", lw=0)
        axes.set(ylabel="test error", ylim=(0.5, 1.9 * LEARNED), xlim=(-0.4, len(line) - 0.6))
        axes.set_xticks(range(len(line)), [f"{'+ ' if i else ''}{name}" for i, name in enumerate(names)])
    markers = {
        "a seed": ("o", "0.4", ""),
        "mean of these seeds": ("", "0.4", "-"),
        "seeds off the axis": ("x", "tab:red", ""),
    }
    handles = [Line2D([], [], marker=marker, color=color, ls=ls) for marker, color, ls in markers.values()]
    figure.legend(handles, markers, loc="outside upper center", ncols=3, frameon=False)


def draw_optimizers(figure: Figure) -> None:
    axes = figure.subplots()
    rows = read_rows("experiments/optimizers_means")
    for name in dict.fromkeys(row["optimizer"] for row in rows):
        own = [row for row in rows if row["optimizer"] == name]
        plot_error(axes, column(own, "lr"), own, name, ls="--" if name == "AdamW" else "-")  # AdamW's hides Adam's
    error_axis(axes, "Five epochs at a constant learning rate, three seeds", "learning rate")
    axes.set(xscale="log", ylabel="test error", ylim=(0.4, 100))
    axes.legend(frameon=False)


def draw_batch_size(figure: Figure) -> None:
    figure.set_size_inches(10, 4.6)
    for axes, equal in zip(figure.subplots(1, 2, sharey=True), ("epochs", "time"), strict=True):
        rows = read_rows("experiments/batch_size_means", equal=equal)
        for size in dict.fromkeys(row["size"] for row in rows):
            own = [row for row in rows if row["size"] == size]
            plot_error(axes, column(own, "lr"), own, f"{size} digits")
        error_axis(axes, f"At equal {equal}", "highest learning rate")
        axes.set(xscale="log", xticks=[], xticklabels=[])
        axes.set_xticks(column(own, "lr"), [row["lr"] for row in own], minor=False)
        axes.minorticks_off()
    figure.axes[0].set_ylabel("test error")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=4, frameon=False, title="Batch")


def draw_digits_needed(figure: Figure) -> None:
    axes = figure.subplots()
    for distortions, label in ((False, "as they are"), (True, "distorted")):
        rows = read_rows("experiments/digits_means", distortions=distortions)
        plot_error(axes, column(rows, "digits"), rows, label)
    error_axis(axes, "Equal number of steps, five seeds", "training digits")
    axes.set(xscale="log", ylabel="test error")
    axes.legend(frameon=False)


def draw_regularization(figure: Figure) -> None:
    """Of each method its strength of lowest validation loss: the validation loss by epoch.

    Early stopping has the curve of "nothing", and on it a dot for each seed, where it stopped.
    """
    figure.set_size_inches(10, 5.4)
    axes = figure.subplots()
    rows, curves = read_rows("experiments/regularization_means"), read_rows("experiments/regularization_curves")
    best = {row["method"]: row["strength"] for row in sorted(rows, key=lambda row: -float(row["validation_loss"]))}
    styles = iter(("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1))))
    for method in dict.fromkeys(row["method"] for row in rows):
        seeds = list(grouped(matching(curves, {"method": method, "strength": best[method]}), ("seed",)).values())
        if method == "early stopping":
            stops = [min(seed, key=lambda row: float(row["validation_loss"])) for seed in seeds]
            axes.plot(column(stops, "epoch"), column(stops, "validation_loss"), "k.", ms=9, label=method, zorder=3)
            continue
        losses = np.mean([column(seed, "validation_loss") for seed in seeds], axis=0)
        label = method if method in ("nothing", "distortions") else f"{method}, {best[method]}"
        axes.plot(column(seeds[0], "epoch"), losses, ls=next(styles), lw=1.8, label=label)
    axes.set(title="1,000 training digits, mean of five seeds", xlabel="epoch", ylabel="validation loss")
    axes.set(yscale="log", xlim=(0, 60), ylim=(0.09, 1))
    axes.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator(), major_formatter="{x:g}")
    axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)


DISTURBED = {
    "rotation": "degrees",
    "shift": "pixels to the side",
    "scale": "factor",
    "noise": "standard deviation",
}
ATTACKED = {
    "loss": ("through the loss", "tab:blue"),
    "lead": ("through the scores", "tab:orange"),
    "lead20": ("the same, twenty steps", "tab:green"),
}
TRAINED = {True: ("on distorted digits", "-"), False: ("on digits as they are", "--")}


def plot_right(axes: Axes, rows: Rows, **style: str) -> None:
    """The share of test digits read right in rows of means, in a band as wide as its 95% interval."""
    x, right = column(rows, "strength"), np.array(column(rows, "test_accuracy"))
    interval = np.array(column(rows, "test_accuracy_interval"))
    axes.plot(x, right, marker="o", markersize=3.5, **style)
    axes.fill_between(x, right - interval, right + interval, color=style["color"], alpha=0.2, lw=0)


def draw_robustness(figure: Figure) -> None:
    """Four disturbances and the attacks; solid for networks trained with distortions, dashed for those without."""
    figure.set_size_inches(10, 6.6)
    *panels, attack, legends = figure.subplots(2, 3, sharey=True).flat
    for distortions, (_, ls) in TRAINED.items():
        rows = read_rows("experiments/robustness_means", distortions=distortions)
        for axes, name in zip(panels, DISTURBED, strict=True):
            plot_right(axes, matching(rows, {"disturbance": name}), color="tab:blue", ls=ls)
        rows = read_rows("experiments/attacks_means", distortions=distortions)
        untouched = matching(rows, {"strength": 0})  # stands with the first attack, and is the same for all
        for name, (_, color) in ATTACKED.items():
            own = [row for row in matching(rows, {"attack": name}) if row not in untouched]
            plot_right(attack, untouched + own, color=color, ls=ls)
    titles = {**DISTURBED, "attack": "largest change of a pixel"}
    for axes, (title, unit) in zip((*panels, attack), titles.items(), strict=True):
        axes.set(title=title, xlabel=unit, ylim=(0, 1.02))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(alpha=0.3)
    for axes in figure.axes[::3]:
        axes.set_ylabel("test digits read right")
    legends.axis("off")
    networks = [Line2D([], [], color="0.3", ls=ls, label=label) for label, ls in TRAINED.values()]
    ways = [Line2D([], [], color=color, label=label) for label, color in ATTACKED.values()]
    for title, lines, y in (("Trained", networks, 0.66), ("Attacked", ways, 0.28)):
        style = {"title_fontproperties": {"weight": "bold"}, "alignment": "left", "frameon": False}
        legends.add_artist(legends.legend(handles=lines, title=title, loc=(0, y), **style))


SHOWN_DIGIT = 67  # of the test digits: one that noise leaves alone, and the attack does not


def draw_distorted(figure: Figure) -> None:
    """A test digit distorted eight ways; and with noise and attacked, with what the shipped network reads."""
    figure.set_size_inches(10, 4.5)
    images, labels = load_mnist(ROOT / "data", train=False)
    image, label, model = images[SHOWN_DIGIT, None], labels[SHOWN_DIGIT, None], load("lenet")
    eight = random_affine(image.repeat(8, 1, 1, 1), epoch_generator(0, 0))
    above, below = figure.subfigures(2, 1, height_ratios=(1.55, 2.95))
    above.suptitle("One test digit, distorted eight times as in training")
    for axes, distorted in zip(above.subplots(1, 8), eight, strict=True):
        axes.imshow(distorted[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
    moved = attacked(model, image, label, 0.2, lead)
    pictures = {"as it is": image, "noise of 0.4": noisy(model, image, label, 0.4), "attacked by 0.2": moved}
    panels = below.subplots(1, 4)
    for axes, (name, picture) in zip(panels[[0, 1, 3]], pictures.items(), strict=True):
        with torch.inference_mode():
            probability, digit = model(picture).softmax(dim=1)[0].max(dim=0)
        axes.imshow(picture[0, 0].numpy(), cmap="gray_r", vmin=0, vmax=1)
        color = "black" if digit == label else "tab:red"
        axes.set_title(f"{name}:\nread as {digit}, {probability:.0%} sure", color=color)
    panels[2].imshow((moved - image)[0, 0].numpy(), cmap="RdBu_r", vmin=-0.4, vmax=0.4)
    panels[2].set_title("what the attack added\n(red) or took away")
    for axes in panels:
        axes.set(xticks=[], yticks=[])


NON_DIGITS = {"letters": "printed letters", "turned": "digits turned by a quarter", "overlaid": "two digits overlaid"}
SURE = {  # network, smoothing, score: label, and how its line is drawn
    ("today", True, "probability"): ("today, smoothed labels: probability", "tab:blue", "-"),
    ("today", False, "probability"): ("today: probability", "tab:orange", "-"),
    ("today", False, "energy"): ("today: energy", "tab:orange", "--"),
    ("today", False, "margin"): ("today: margin", "tab:orange", ":"),
    ("1998", False, "score"): ("1998: distance", "tab:green", "-"),
    ("1998", False, "probability with the floor"): ("1998: probability with the floor", "tab:green", ":"),
}


def draw_unknown(figure: Figure) -> None:
    """The share of each kind of non-digits that is refused against that of the test digits."""
    figure.set_size_inches(10, 4.6)
    means = read_rows("experiments/unknown_means", distortions=True)
    for axes, (kind, title) in zip(figure.subplots(1, 3, sharey=True), NON_DIGITS.items(), strict=True):
        for (network, smoothing, score), (label, color, ls) in SURE.items():
            rows = matching(means, {"network": network, "smoothing": smoothing, "score": score})
            digits, refused, interval = (
                100 * np.array(column(rows, name)) for name in ("digits", kind, f"{kind}_interval")
            )
            axes.plot(digits, refused, marker="o", ms=3.5, color=color, ls=ls, label=label)
            axes.fill_between(digits, refused - interval, refused + interval, color=color, alpha=0.15, lw=0)
        axes.set(title=title, xlabel="test digits refused", xscale="log", ylim=(0, 102))
        axes.xaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator())
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}%")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("non-digits refused")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)


def draw_missed(figure: Figure) -> None:
    """The test digits that all seeds read wrong, with what most of them read."""
    reads: dict[int, list[str]] = {}
    rows = read_rows("experiments/missed_curves")
    for row in rows:
        reads.setdefault(int(row["index"]), []).append(row["read"])
    seeds = len({row["seed"] for row in rows})
    missed = sorted(index for index, read in reads.items() if len(read) == seeds)
    images, labels = load_mnist(ROOT / "data", train=False)
    lines = -(-len(missed) // 7)
    figure.set_size_inches(8, 1.25 * lines)
    for axes in figure.subplots(lines, 7, squeeze=False).flat:
        axes.axis("off")
    for axes, index in zip(figure.axes, missed, strict=False):
        axes.imshow(images[index, 0].numpy(), cmap="gray_r")
        axes.set_title(f"{labels[index]} read as {mode(reads[index])}", fontsize=9)


PUBLISHED = {697: (99.03, "five convolutions [18]")}  # by parameters
PUBLISHED_WITHOUT_SIZE = {99.46: "LeNet-5's features, support vector machine [17]", 99.6: "a wider network [2]"}


def draw_width(figure: Figure) -> None:
    axes = figure.subplots()
    rows = read_rows("experiments/width_means")
    plot_error(axes, column(rows, "parameters"), rows, "LeNet-5's layout")
    above = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center", "fontsize": 9}
    for row in rows:
        at = (float(row["parameters"]), 100 - 100 * float(row["test_accuracy"]))
        axes.annotate(f"{row['width']}x", at, xytext=(4, 8), textcoords="offset points", fontsize=9)
    for parameters, (accuracy, name) in PUBLISHED.items():
        axes.plot(parameters, 100 - accuracy, "k*")
        axes.annotate(name, (parameters, 100 - accuracy), **above)
    for accuracy, name in PUBLISHED_WITHOUT_SIZE.items():
        axes.axhline(100 - accuracy, color="0.5", lw=0.8, ls="--")
        axes.text(0.01, 100 - accuracy, name, transform=axes.get_yaxis_transform(), va="bottom", fontsize=9)
    axes.plot([], [], "k*", label="another layout, published")
    error_axis(axes, "Ten epochs, five seeds", "parameters")
    axes.set(xscale="log", ylabel="test error", xlim=(200, 2e6))
    axes.legend(frameon=False)


def draw_best(figure: Figure) -> None:
    """The error of each recipe that was tried on all folds, and below them that of the best one on the test digits."""
    figure.set_size_inches(9, 4.2)
    axes = figure.subplots()
    trials, last = read_rows("experiments/best_trials_means", count=3), read_rows("experiments/best_means")
    for looks, label, beside in (("", "one look", -0.1), ("_nine_looks", "nine looks", 0.1)):
        names = [f"{part}_accuracy{looks}" for part in ("validation", "test")]
        errors = [100 - 100 * x for x in column(trials, names[0]) + column(last, names[1])]
        intervals = column(trials, f"{names[0]}_interval") + column(last, f"{names[1]}_interval")
        y = [place + beside for place in range(len(errors))]
        axes.errorbar(errors, y, xerr=[100 * x for x in intervals], fmt="o", ms=4, capsize=3, label=label)
    axes.axhline(len(trials) - 0.5, color="0.8", lw=0.8)
    axes.set_yticks(range(len(errors)), [*(row["recipe"] for row in trials), "200 epochs, on the test digits"])
    axes.invert_yaxis()
    axes.set(xlabel="error", xlim=(0.25, 0.85))
    axes.xaxis.set_major_formatter("{x:g}%")
    axes.grid(alpha=0.3, axis="x")
    axes.legend(frameon=False, loc="upper left")


def plot_missing(axes: Axes, rows: Rows, by: str, label: str, beside: float, **style: str) -> None:
    """What is missing to a Dice of 1 in rows of means, in percent; `beside` moves a line, lest bars hide bars."""
    x = [beside * value for value in column(rows, by)]
    missing, interval = (np.array(column(rows, name)) * 100 for name in ("dice", "dice_interval"))
    axes.errorbar(x, 100 - missing, interval, marker="o", ms=4, capsize=3, label=label, **style)


def draw_unet_data(figure: Figure) -> None:
    """What is missing to a Dice of 1 against the input's size, the network's width, and the number of cars."""
    figure.set_size_inches(10, 4.2)
    left, middle, right = figure.subplots(1, 3)
    rows = read_rows("experiments/unet_size_means")
    for name, label in (("ceiling", "the ceiling"), ("dice", "model.pth")):
        missing = [100 - 100 * dice for dice in column(rows, name)]
        left.plot(column(rows, "short_side"), missing, marker="o", ms=4, label=label)
    error_axis(left, "Two cars at full size", "short side of the input")
    left.yaxis.set_major_locator(LogLocator())
    left.set_ylabel("missing to a Dice of 1")
    widths = read_rows("experiments/unet_width_means")
    cars = read_rows("experiments/unet_photographs_means")
    for place, (budget, label) in enumerate({"short": "half a minute", "long": "two minutes"}.items()):
        own = [row for row in widths if row["budget"] == budget]
        plot_missing(middle, own, "base_channels", label, 0.97 + 0.06 * place)
    middle.set_xlim(6, 42)
    for place, ((steps, edge), own) in enumerate(grouped(cars, ("steps", "edge")).items()):
        report_cars, color = ("dark edge", "C3") if edge == "dark" else ("others", "C0")
        style = {"color": color, "linestyle": "--" if steps == "250" else "-"}
        plot_missing(right, own, "cars", f"{report_cars}, {int(steps):,} steps", 0.91 + 0.06 * place, **style)
    error_axis(middle, "Equal time, small pictures", "base channels")
    error_axis(right, "Equal steps, small pictures", "cars to train on")
    for axes, rows, name in ((middle, widths, "base_channels"), (right, cars, "cars")):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xticks(sorted({float(row[name]) for row in rows}))
    middle.set_ylim(1, 20)
    right.set_ylim(1.5, 100)
    for axes in (left, middle, right):
        axes.legend(frameon=False, loc="upper left" if axes is middle else "upper right")


# What the filters see


def show(axes: Axes, picture: Tensor, cmap: str = "gray") -> None:
    """A map or kernel [H, W], from its own darkest to its own brightest (but for some single pixels)."""
    most = picture.abs().quantile(0.995).item()
    axes.imshow(picture.numpy(), cmap=cmap, vmin=-most if cmap == "RdBu_r" else picture.min().item(), vmax=most)


def show_maps(figure: Figure, maps: Tensor, columns: int, title: str, cmap: str = "gray") -> None:
    """A sheet of maps [N, H, W]."""
    figure.suptitle(title, fontsize=10)
    for axes in figure.subplots(-(-len(maps) // columns), columns, squeeze=False).flat:
        axes.axis("off")
    for axes, picture in zip(figure.axes, maps, strict=False):
        show(axes, picture, cmap)


@torch.inference_mode()
def outputs_of(model: nn.Module, layers: Sequence[str], image: Tensor) -> list[Tensor]:
    """The maps [C, H, W] that the layers of these names make of `image` [1, C, H, W]."""
    outputs: dict[str, Tensor] = {}
    for name in layers:
        model.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: outputs.update({name: out[0]}))
    model(image)
    return [outputs[name] for name in layers]


@torch.inference_mode()
def draw_lenet_filters(figure: Figure) -> None:
    """Of both networks a table: C1's kernels and maps on the left, C3's maps below, C3's kernels where the two meet."""
    figure.set_size_inches(10, 7.6)
    images, _ = load_mnist(ROOT / "data", train=False)
    modern, original = load("lenet"), load("lenet_original")
    table_i = torch.full((16, 6, 5, 5), torch.nan)  # what C3 does not see stays white
    table_i[original.C3.pairs[0], original.C3.pairs[1]] = original.C3.kernels
    for half, (model, c3_kernels, year) in zip(
        figure.subfigures(2, 1), ((modern, modern.C3.weight, "today"), (original, table_i, "1998")), strict=True
    ):
        c1_maps, c3_maps = outputs_of(model, ("C1", "C3"), images[:1])
        half.suptitle(f"{year}: C1's kernels and maps, and C3's kernels above its maps", fontsize=10)
        axes = half.subplots(7, 18)
        for one in axes.flat:
            one.axis("off")
        for row, (kernel, c1_map) in enumerate(zip(model.C1.weight[:, 0], c1_maps, strict=True)):
            show(axes[row, 0], kernel, "RdBu_r")
            show(axes[row, 1], c1_map)
            for at, c3_kernel in enumerate(c3_kernels[:, row]):
                show(axes[row, at + 2], c3_kernel, "RdBu_r")
        show(axes[6, 1], images[0, 0])
        for at, c3_map in enumerate(c3_maps):
            show(axes[6, at + 2], c3_map)


@torch.inference_mode()
def draw_unet_filters(figure: Figure) -> None:
    """The first level's kernels and maps on the drawn car: on the way down, and just before the last convolution."""
    figure.set_size_inches(10, 6.4)
    model = load("unet")
    small = np.array(open_photograph(ROOT / "car.jpg").resize((432, 288)))
    image = torch.from_numpy(small).permute(2, 0, 1)[None] / 255  # [1, 3, 288, 432]
    down, up = outputs_of(model, ("down_conv1", "up_conv4"), image)
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=(2, 2, 2))
    kernels = model.down_conv1[0].weight
    show_maps(top, kernels.mean(dim=1), 8, "down_conv1's first kernels, mean of red, green and blue", "RdBu_r")
    show_maps(middle, down, 8, "down_conv1's maps: edges and surfaces, wherever they are")
    show_maps(bottom, up, 8, "up_conv4's maps: the car, apart from the rest")


FIGURES: dict[str, Callable[[Figure], None]] = {
    "both": draw_both,
    "architectures": draw_architectures,
    "lenet_curves": draw_curves,
    "unet_curves": draw_unet_curves,
    "car_mask": draw_mask,
    "ladder": draw_ladder,
    "optimizers": draw_optimizers,
    "batch_size": draw_batch_size,
    "digits": draw_digits_needed,
    "regularization": draw_regularization,
    "robustness": draw_robustness,
    "distorted": draw_distorted,
    "unknown": draw_unknown,
    "missed": draw_missed,
    "width": draw_width,
    "best": draw_best,
    "unet_place": draw_unet_place,
    "unet_rows": draw_unet_rows,
    "unet_data": draw_unet_data,
    "lenet_filters": draw_lenet_filters,
    "unet_filters": draw_unet_filters,
}


PHOTOGRAPHS = ("both", "car_mask", "unet_place")  # as JPEG: a tenth of the PNG's size


def draw(name: str) -> None:
    """Draws the figure `name` into its file."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FIGURES[name](figure)
    with write_whole(FOLDER / f"{name}.{'jpg' if name in PHOTOGRAPHS else 'png'}") as part:
        figure.savefig(part, dpi=150)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", choices=[[], *FIGURES], help="figures (default: all)")
    names = parser.parse_args().name or list(FIGURES)
    with told():
        FOLDER.mkdir(parents=True, exist_ok=True)
        if RUN_OF_SEED_0.exists():
            keep_what_was_read(RUN_OF_SEED_0)
        for name in names:
            draw(name)


if __name__ == "__main__":
    main()
