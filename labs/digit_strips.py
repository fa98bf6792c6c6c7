"""Reads strips of up to five handwritten digits: a companion lab (seed 002, sections 1.3 to 3).

    python -m labs.digit_strips lesson            the Dataset, the one-hot labels, and the two ways to save a network
    python -m labs.digit_strips train             learns from 280,000 pieces of strips, tests on 10,000 other strips
    python -m labs.digit_strips train --validate            tries settings without touching the test digits
    python -m labs.digit_strips train --out runs/mine --resume
    python -m labs.digit_strips read STRIP.png              prints what it reads, such as 7_210: _ is a blank place
    python -m labs.digit_strips search --method random --trials 16 --folds 3

`train` ends with a line such as

    Test strips: 97.31% wholly right (9731/10000), pieces 99.45%

`search` writes search.csv after every trial, best.csv and valley.png; a search that is stopped goes on, when the same
command is given again, with the trial that it was in.
"""

import argparse
import csv
import itertools
import json
import math
import pickle
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Lambda

from carvana import open_photograph
from train_lenet import (
    VALIDATION_DIGITS,
    WEIGHT_DECAY,
    Batches,
    check_arguments,
    evaluate,
    load_mnist,
    random_affine,
    train_epoch,
)
from training import Run, add_run_arguments, epoch_generator, pick_device, save_weights, write_rows, write_whole

WEIGHTS = Path(__file__).resolve().parent / "weights" / "digit_strips.pth"
PLACES, SIDE, BLANK = 5, 28, 10
PIECES, TEST_STRIPS = 280_000, 10_000
DEFAULTS = {"epochs": 6, "batch_size": 256, "lr": 0.003, "augment": 1.0, "seed": 0, "validate": False, "quick": False}
SPACE = {  # what `search` tries; a grid goes through the learning rates first, then through the optimizers, and so on
    "lr": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
    "optimizer": ("sgd", "adam"),
    "momentum": (0.9, 0.5, 0.0),
    "batch_size": (60, 30, 120),
    "epochs": (4, 2),
}
LEAST_CONTRAST = 25  # grey levels of 255 between ink and paper: a blank strip's dirt and JPEG noise have fewer

Digits = tuple[Tensor, Tensor]


def make_strips(digits: Digits, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Strips `[B, 28, 140]` of five places, bytes with 0 the background, and their labels `[B, 5]`.

    A place is blank (label 10) with a chance of 1 in 11, else one of `digits`: images `[N, 1, 28, 28]` in [0, 1] and
    labels `[N]`.
    """
    images, labels = digits
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(images), (count, PLACES), generator=generator)
    blank = torch.rand(count, PLACES, generator=generator) < 1 / 11
    places = (images[:, 0] * 255).round().byte()[chosen]  # [B, 5, 28, 28]
    places[blank] = 0
    return places.transpose(1, 2).reshape(count, SIDE, PLACES * SIDE), labels[chosen].masked_fill(blank, BLANK)


def cut(strips: Tensor) -> Tensor:
    """All pieces `[B * places, 1, 28, 28]` of strips `[B, 28, places * 28]`, those of a strip after one another."""
    return strips.unflatten(2, (-1, SIDE)).transpose(1, 2).reshape(-1, 1, SIDE, SIDE)


# Section 1.4.2, for eleven classes. F.nll_loss takes the label itself, so only the lesson needs it.
one_hot = Lambda(lambda label: torch.zeros(11).scatter_(dim=0, index=torch.as_tensor(label), value=1))


class StripPieces(Dataset):
    """The pieces of strips `[B, 28, places * 28]` (bytes), one by one: section 1.3.2's `CustomedDataSet`.

    Gives (piece `[1, 28, 28]` in [0, 1], label), or the piece alone where `labels` `[B, places]` are not known.
    """

    def __init__(
        self, strips: Tensor, labels: Tensor | None = None, target_transform: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.strips, self.labels, self.target_transform = strips, labels, target_transform
        self.places = strips.shape[2] // SIDE

    def __len__(self) -> int:
        return len(self.strips) * self.places

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | Tensor:
        if not 0 <= index < len(self):
            raise IndexError(index)
        strip, place = divmod(index, self.places)
        piece = self.strips[strip, None, :, place * SIDE : (place + 1) * SIDE] / 255
        if self.labels is None:
            return piece
        label = self.labels[strip, place]
        return piece, label if self.target_transform is None else self.target_transform(label)


class CNN(nn.Module):
    """Section 2's network: pieces `[B, 1, 28, 28]` in [0, 1] -> logarithms of the 11 probabilities, `[B, 11]`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 3)
        self.fc1 = nn.Linear(20 * 10 * 10, 500)
        self.fc2 = nn.Linear(500, 11)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2, 2)  # [B, 10, 24, 24], then [B, 10, 12, 12]
        x = F.relu(self.conv2(x)).flatten(1)  # [B, 20, 10, 10], then [B, 2000]
        return F.log_softmax(self.fc2(F.relu(self.fc1(x))), dim=1)  # without `dim`, as in the seed, PyTorch warns


def lesson(args: argparse.Namespace) -> None:
    """What sections 1.3, 1.4 and 2.3 show."""
    strips, labels = make_strips(load_mnist(args.data, train=True), count=12, seed=0)
    dataset = StripPieces(strips, labels, one_hot)
    pieces, targets = next(iter(DataLoader(dataset, batch_size=60)))
    print(f"{len(dataset)} pieces; a batch has pieces {list(pieces.shape)} and one-hot labels {list(targets.shape)}")
    print(f"label {labels[0, 0]} as one-hot: {targets[0].int().tolist()}")
    torch.manual_seed(0)
    network = CNN()
    scores = network(pieces)
    by_label, by_vector = F.nll_loss(scores, labels.flatten()), -(targets * scores).sum(dim=1).mean()
    print(f"loss by label {by_label:.4f}, by one-hot vector {by_vector:.4f}")

    with tempfile.TemporaryDirectory() as folder:
        whole, weights, trap = (Path(folder, f"{name}.pth") for name in ("whole", "weights", "trap"))
        torch.save(network, whole)
        torch.save(network.state_dict(), weights)
        torch.save(Trap(), trap)
        print(f"\nwhole network: {whole.stat().st_size:,} bytes; weights: {weights.stat().st_size:,} bytes")
        try:
            torch.load(whole, weights_only=True)
        except pickle.UnpicklingError:
            print("torch.load(whole, weights_only=True): refused, for the file names a class whose code would be run")
        torch.load(whole, weights_only=False)
        print("torch.load(whole, weights_only=False): loaded, and so is any other file, such as trap.pth, which says:")
        torch.load(trap, weights_only=False)
        again = CNN()
        again.load_state_dict(torch.load(weights, weights_only=True))
        same = torch.equal(again.eval()(pieces), network.eval()(pieces))
        print(f"load_state_dict(torch.load(weights, weights_only=True)): the same answers: {same}")


class Trap:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return print, ("    this line was printed by the file; it could have deleted yours",)


@torch.inference_mode()
def read_pieces(network: nn.Module, pieces: Tensor) -> Tensor:
    """What the network reads in pieces `[B, 1, 28, 28]` in [0, 1]: `[B]`, 0 to 9, or 10 for a blank one."""
    network.eval()
    device = next(network.parameters()).device
    return torch.cat([network(part.to(device)).argmax(dim=1).cpu() for part in pieces.split(1000)])


def train(run: Run, digits: Digits, test_digits: Digits, device: torch.device) -> None:
    """Trains from the first epoch, or from the one after the run's checkpoint, and writes what came of it."""
    settings = run.settings
    epochs, seed, batch_size = settings["epochs"], settings["seed"], settings["batch_size"]
    test_name = "validation" if settings["validate"] else "test"
    count, test_count = (600, 200) if settings["quick"] else (PIECES // PLACES, TEST_STRIPS)
    strips, labels = make_strips(digits, count, seed)
    # 280,000 pieces are 220 MB as bytes, and one index takes a batch of them; a DataLoader would cut and stack 280,000
    # small tensors an epoch.
    pieces, labels = cut(strips).to(device), labels.flatten().to(device)
    test_strips, test_labels = make_strips(test_digits, test_count, seed=0)  # the same for every seed
    test_pieces = cut(test_strips) / 255

    def distort(part: Tensor, generator: torch.Generator) -> Tensor:
        return random_affine(part / 255, generator, settings["augment"]) if settings["augment"] else part / 255

    torch.manual_seed(seed)
    network = CNN().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings["lr"], weight_decay=WEIGHT_DECAY, fused=True)
    scheduler = OneCycleLR(optimizer, max_lr=settings["lr"], total_steps=epochs * -(-len(pieces) // batch_size))
    run.restore(network=network, optimizer=optimizer, scheduler=scheduler)
    for epoch in run.epochs(epochs):
        batches = Batches(pieces, labels, batch_size, epoch_generator(seed, epoch), distort)
        loss, accuracy = train_epoch(network, batches, F.nll_loss, optimizer, scheduler, epoch)
        test_loss, test_accuracy = evaluate(network, Batches(test_pieces, test_labels.flatten(), 1000), F.nll_loss)
        row = {"train_loss": loss, "train_accuracy": accuracy}
        row = run.record({**row, f"{test_name}_loss": test_loss, f"{test_name}_accuracy": test_accuracy})
        print(
            f"epoch {epoch}/{epochs}: train loss {loss:.4f}, {test_name} pieces {test_accuracy:.2%}, "
            f"{row['seconds']:.0f} s",
            flush=True,
        )

    read = read_pieces(network, test_pieces).view_as(test_labels)
    right = read == test_labels
    strips_right = right.all(dim=1).sum().item()
    result = {
        **settings,
        "strips": test_count,
        "strips_right": strips_right,
        "strips_accuracy": strips_right / test_count,
        "pieces": right.numel(),
        "pieces_wrong": (~right).sum().item(),
        "pieces_accuracy": right.double().mean().item(),
        "blanks": (test_labels == BLANK).sum().item(),
        "mistakes_with_blanks": (~right & ((test_labels == BLANK) | (read == BLANK))).sum().item(),
        "seconds": sum(row["seconds"] for row in run.history),
    }
    with write_whole(run.out / "result.json") as part:
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    plot_strips(run.out / "strips.png", test_strips, test_labels, read)
    save_weights(run.out / "digit_strips.pth", network, torch.float16)
    losses = {label: run.column(f"{name}_loss") for label, name in (("training", "train"), (test_name, test_name))}
    errors = {test_name: [100 - 100 * value for value in run.column(f"{test_name}_accuracy")]}
    run.finish({"Loss": losses, "Error, % of the pieces": errors})
    print(
        f"{test_name.capitalize()} strips: {strips_right / test_count:.2%} wholly right ({strips_right}/{test_count}), "
        f"pieces {result['pieces_accuracy']:.2%}"
    )
