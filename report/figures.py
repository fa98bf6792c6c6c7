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
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter
from torch import Tensor, nn

from infer_unet import overlay, predict_mask
from labs.weights import load
from pictures import open_photograph
from report import tables
from report.tables import RESULTS, Rows, matching
from report.unet_experiments import mask_at
from train_lenet import load_mnist
from training import ROOT, command, told, write_whole

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
    figure.set_size_inches(10, 3.8)
    left, right = figure.subplots(1, 2)
    for start, end in pairwise(changes):
        window = min(50, end - start)
        smooth = values[start:end].unfold(0, window, 1).mean(dim=1).numpy()
        left.plot(range(start + window, end + 1), smooth, color="tab:blue", lw=1)
        left.axvline(start, color="0.8", lw=0.8)
        name_stage(left, (start + end) / 2, stages[start][1])
    left.set(title="Training loss, mean of 50 steps, by short side", xlabel="step", yscale="log")
    epochs, dice = column(history, "epoch"), column(history, "dice")
    right.plot(epochs, dice, marker="o", markersize=4, color="tab:blue")
    stages = [(row["run"], row["size"]) for row in history]
    for stage in dict.fromkeys(stages):
        own = [epoch for epoch, other in zip(epochs, stages, strict=True) if other == stage]
        right.axvline(own[0] - 0.5, color="0.8", lw=0.8)
        name_stage(right, mean(own), stage[1])
    right.set_ylim(top=0.996)
    right.set(title="Dice on the selection cars, each at its stage's size", xlabel="epoch")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
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
    axes.set(xlim=(-1, 573), yticks=[], xlabel="row of the input", title="572 rows, not padded: what each CropAndConcat joins")
    axes.invert_yaxis()
    axes.spines[["top", "left", "right"]].set_visible(False)
    colors = {"skip, cut off around its centre": "tab:blue", "cut off": "lightgray", "path from below": "tab:orange"}
    handles = [Line2D([], [], color=color, lw=8) for color in colors.values()]
    figure.legend(handles, colors, loc="outside lower center", ncols=3, frameon=False)


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
    "activation": "ReLU",
    "pooling": "max-pooling",
    "table": "full C3",
    "output": "linear,\ncross-entropy",
    "distortions": "distortions",
}


def draw_ladder(figure: Figure) -> None:
    """One line forward and one backward; both begin with the network of 1998 and end with today's."""
    figure.set_size_inches(10, 6.4)
    rows = sorted(read_rows("experiments/ladder_means"), key=lambda row: int(row["rung"]))
    chosen = [row for row in rows if row["test_accuracy_interval"]]  # the others have only the seed that chose
    forward, backward = ([row for row in chosen if row["order"] == order] for order in ("forward", "backward"))
    backward = [forward[0], *backward]
    first_change, last_change = forward[1]["changed"], forward[-1]["changed"]
    ends = {"forward": forward, "backward": [*backward, {**forward[-1], "changed": first_change}]}
    for axes, (order, rows) in zip(figure.subplots(2, 1, sharey=True), ends.items(), strict=True):
        first = first_change if order == "forward" else last_change
        x = range(len(rows))
        plot_error(axes, x, rows, order, color="tab:blue" if order == "forward" else "tab:orange")
        error_axis(axes, f"From 1998 to today, {first} first", "")
        axes.set(ylabel="test error", xticks=x, xlim=(-0.4, len(rows) - 0.6))
        axes.set_xticklabels([f"{'+ ' if i else ''}{CHANGES[row['changed']]}" for i, row in enumerate(rows)])


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
    """Of each method its strength of lowest validation loss: the loss of training and of validation digits.

    Of early stopping a dot for each seed, where it stopped.
    """
    figure.set_size_inches(10, 6)
    rows, curves = read_rows("experiments/regularization_means"), read_rows("experiments/regularization_curves")
    best = {row["method"]: row["strength"] for row in sorted(rows, key=lambda row: -float(row["validation_loss"]))}
    methods = dict.fromkeys(row["method"] for row in rows)
    for axes, method in zip(figure.subplots(2, 3, sharex=True, sharey=True).flat, methods, strict=True):
        own = [row for row in curves if (row["method"], row["strength"]) == (method, best[method])]
        seeds = [[row for row in own if row["seed"] == seed] for seed in dict.fromkeys(row["seed"] for row in own)]
        for part, label in (("train", "training"), ("validation", "validation")):
            losses = np.mean([column(seed, f"{part}_loss") for seed in seeds], axis=0)
            axes.plot(column(seeds[0], "epoch"), losses, label=label)
        if method == "early stopping":
            stops = [min(seed, key=lambda row: float(row["validation_loss"])) for seed in seeds]
            axes.plot(column(stops, "epoch"), column(stops, "validation_loss"), "k.")
        axes.set(title=method if best[method] == "0" else f"{method}, {best[method]}", yscale="log", ylim=(3e-4, 5))
        axes.grid(alpha=0.3)
    for axes in figure.axes[3:]:
        axes.set_xlabel("epoch")
    for axes in figure.axes[::3]:
        axes.set_ylabel("loss")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)


DISTURBED = {
    "rotation": "degrees",
    "shift": "pixels to the side",
    "scale": "factor",
    "noise": "standard deviation",
    "attack": "largest change of a pixel",
}


def draw_robustness(figure: Figure) -> None:
    figure.set_size_inches(12, 3.4)
    for axes, (name, unit) in zip(figure.subplots(1, 5, sharey=True), DISTURBED.items(), strict=True):
        for distortions, label in ((False, "trained on digits as they are"), (True, "on distorted digits")):
            rows = read_rows("experiments/robustness_means", distortions=distortions, disturbance=name)
            x, right = column(rows, "strength"), np.array(column(rows, "test_accuracy"))
            interval = np.array(column(rows, "test_accuracy_interval"))
            (line,) = axes.plot(x, right, marker="o", markersize=3, label=label)
            axes.fill_between(x, right - interval, right + interval, color=line.get_color(), alpha=0.2, lw=0)
        axes.set(title=name, xlabel=unit, ylim=(0, 1.02))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("test digits read right")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)


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


PUBLISHED = {697: (99.03, "five convolutions [18]"), 9994: (99.60, "BatchNorm, one run")}  # by parameters
PUBLISHED_WITHOUT_SIZE = {99.46: "LeNet-5's features, support vector machine [17]", 99.6: "a wider network [2]"}


def draw_width(figure: Figure) -> None:
    axes = figure.subplots()
    rows = read_rows("experiments/width_means")
    plot_error(axes, column(rows, "parameters"), rows, "LeNet-5's layout")
    above = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center", "fontsize": 8}
    for row in rows:
        at = (float(row["parameters"]), 100 - 100 * float(row["test_accuracy"]))
        axes.annotate(f"{row['width']}x", at, **above)
    for parameters, (accuracy, name) in PUBLISHED.items():
        axes.plot(parameters, 100 - accuracy, "k*")
        axes.annotate(name, (parameters, 100 - accuracy), **above)
    for accuracy, name in PUBLISHED_WITHOUT_SIZE.items():
        axes.axhline(100 - accuracy, color="0.5", lw=0.8, ls="--")
        axes.text(0.01, 100 - accuracy, name, transform=axes.get_yaxis_transform(), va="bottom", fontsize=8)
    axes.plot([], [], "k*", label="other layouts, published")
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


def draw_unet_data(figure: Figure) -> None:
    """Dice against the input's size, the network's width, and the number of cars."""
    figure.set_size_inches(11, 3.6)
    left, middle, right = figure.subplots(1, 3)
    rows = read_rows("experiments/unet_size_means")
    for name, label in (("ceiling", "the ceiling"), ("dice", "model.pth")):
        missing = [100 - 100 * dice for dice in column(rows, name)]
        left.plot(column(rows, "short_side"), missing, marker="o", ms=4, label=label)
    error_axis(left, "32 photographs at full size", "short side of the input")
    left.yaxis.set_major_locator(LogLocator())
    left.legend(frameon=False)
    for axes, name, by, xlabel in (
        (middle, "unet_width", "base_channels", "base channels, equal time"),
        (right, "unet_photographs", "cars", "cars to train on, equal steps"),
    ):
        rows = read_rows(f"experiments/{name}_means")
        missing = [100 - 100 * dice for dice in column(rows, "dice")]
        axes.errorbar(
            column(rows, by), missing, [100 * x for x in column(rows, "dice_interval")], marker="o", ms=4, capsize=3
        )
        error_axis(axes, f"Small pictures, {rows[0]['count']} seeds", xlabel)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xticks(column(rows, by))
        axes.set_ylim(2, 20)
    left.set_ylabel("missing to a Dice of 1")


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
    "lenet_curves": draw_curves,
    "unet_curves": draw_unet_curves,
    "car_mask": draw_mask,
    "ladder": draw_ladder,
    "optimizers": draw_optimizers,
    "batch_size": draw_batch_size,
    "digits": draw_digits_needed,
    "regularization": draw_regularization,
    "robustness": draw_robustness,
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
