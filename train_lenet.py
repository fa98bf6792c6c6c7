"""Trains LeNet-5 on MNIST, tests it, and keeps everything that the run made in a folder of its own.

    python train_lenet.py --epochs 10                     the network as it is taught today
    python train_lenet.py --epochs 20 --model original    the network of 1998
    python train_lenet.py --validate                      tries settings without touching the test set
    python train_lenet.py --out runs/mine --resume        goes on with a run that was stopped or killed

The first prints one line an epoch and ends, give or take a few digits of another machine's rounding, with

    epoch 10/10: train loss 0.0223, train accuracy 99.30%, test accuracy 99.44%, ... s
    Test accuracy: 99.44% (9944/10000)

Training accuracy is that of the distorted digits while the network still learned; report/README.md says more.
"""

import argparse
import gzip
import hashlib
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from tqdm import tqdm

from lenet import LeNet5, LeNet5Original, original_loss
from training import (
    Run,
    add_run_arguments,
    between,
    command,
    epoch_generator,
    loss_and_error,
    pick_device,
    save_weights,
    shipped,
    told,
    write_whole,
)

DEFAULTS = {
    "model": "modern",
    "epochs": 10,
    "batch_size": 256,
    "lr": 0.012,
    "augment": True,
    "seed": 0,
    "validate": False,
}
MNIST_FILES = {  # name, without .gz: MD5 of the archive, and the shape of the numbers in it
    "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", (60000, 28, 28)),
    "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", (60000,)),
    "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", (10000, 28, 28)),
    "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", (10000,)),
}
VALIDATION_DIGITS = 5000
WEIGHT_DECAY = 0.01


def read_mnist_file(raw: Path, name: str) -> Tensor | None:
    """The numbers, uint8, of one of MNIST's files in the folder `raw`, packed or not; None if it is not there whole."""
    md5, shape = MNIST_FILES[name]
    archive, unpacked = raw / f"{name}.gz", raw / name
    content = archive.read_bytes() if archive.exists() else b""
    if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5:
        content = gzip.decompress(content)
    elif unpacked.exists():
        content = unpacked.read_bytes()
    if len(content) != 4 + 4 * len(shape) + math.prod(shape):  # a header, then the numbers
        return None
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[-math.prod(shape) :].view(shape)


def download_mnist(raw: Path) -> None:
    """Puts MNIST's archives into the folder `raw`; raises ValueError or OSError, worded for the user."""
    from torchvision.datasets import MNIST  # takes as long to import as PyTorch itself, and is seldom needed

    with TemporaryDirectory() as folder:  # so that what is cut short, or done by two at once, harms nothing
        try:
            with redirect_stdout(StringIO()):  # it prints a page of URLs and what went wrong with each
                MNIST(folder, download=True)
        except (RuntimeError, OSError) as error:
            bad = [name for name in MNIST_FILES if read_mnist_file(raw, name) is None]
            named = ", ".join(f"{raw / name}.gz (MD5 {MNIST_FILES[name][0]})" for name in bad)
            what = "MNIST is missing or damaged, and could not be downloaded"
            raise ValueError(f"{what}: put there by hand {named}") from error
        raw.mkdir(parents=True, exist_ok=True)
        for name in MNIST_FILES:
            with write_whole(raw / f"{name}.gz") as part:
                shutil.copyfile(Path(folder, "MNIST", "raw", f"{name}.gz"), part)


def load_mnist(root: Path, train: bool) -> tuple[Tensor, Tensor]:
    """MNIST's images `[B, 1, 28, 28]`, values in [0, 1] with 0 the background, and labels `[B]`, 0 to 9.

    Uses the archives in ROOT/MNIST/raw (ROOT may also be one of these two folders), or downloads them. Raises
    ValueError or OSError, worded for the user.
    """
    raw = {"MNIST": root / "raw", "raw": root}.get(root.name, root / "MNIST" / "raw")
    names = [name for name in MNIST_FILES if name.startswith("train" if train else "t10k")]
    if any(read_mnist_file(raw, name) is None for name in names):
        download_mnist(raw)
    images, labels = (read_mnist_file(raw, name) for name in names)
    return images.unsqueeze(1) / 255, labels.long()


def random_maps(count: int, generator: torch.Generator, strength: float = 1) -> Tensor:
    """`count` matrices `[count, 2, 3]` that turn, scale, slant and shift by small random amounts, for `affine_grid`."""

    def uniform(limit: float) -> Tensor:
        return (2 * torch.rand(count, generator=generator) - 1) * limit * strength

    angle, slant = uniform(0.2), uniform(0.2)  # radians, and columns a row
    scale_x, scale_y = 1 + uniform(0.12), 1 + uniform(0.12)
    shift_x, shift_y = uniform(0.12), uniform(0.12)  # 1 is half the picture
    cos, sin = angle.cos(), angle.sin()
    rows = [
        cos * scale_x,
        (slant * cos - sin) * scale_y,
        shift_x,
        sin * scale_x,
        (slant * sin + cos) * scale_y,
        shift_y,
    ]
    return torch.stack(rows, dim=1).view(count, 2, 3)


def random_affine(images: Tensor, generator: torch.Generator, strength: float = 1) -> Tensor:
    """Each of the images `[B, 1, H, W]` turned, scaled, slanted and shifted in its own way."""
    maps = random_maps(len(images), generator, strength).to(images.device)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


class Batches:
    """Batches of (images, labels) from a data set that is held in memory as two tensors.

    With a generator in a new random order each time that it is gone through, else in order.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        generator: torch.Generator | None = None,
        augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    ) -> None:
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.generator, self.augment = generator, augment

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.generator is None:
            yield from zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True)
            return
        order = torch.randperm(len(self.images), generator=self.generator).to(self.images.device)
        for index in order.split(self.batch_size):
            images = self.images[index]
            if self.augment is not None:
                images = self.augment(images, self.generator)
            yield images, self.labels[index]


def train_epoch(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss_function: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None = None,
    epoch: int = 1,
) -> tuple[float, float]:
    """Trains on every (images `[B, C, H, W]`, labels `[B]` or, as shares, `[B, classes]`) of `batches` once.

    Returns the mean loss and the share of right answers, both as they were during the epoch, while the network learned.
    Raises FloatingPointError as soon as the loss is no finite number.
    """
    model.train()
    device = next(model.parameters()).device
    total_loss, correct, seen = 0.0, 0, 0
    bar = tqdm(batches, desc=f"epoch {epoch}", unit="batch", leave=False, disable=None)
    for step, (images, labels) in enumerate(bar, start=1):
        images, labels = images.to(device), labels.to(device)
        logits = model(images)
        loss = loss_function(logits, labels)
        if not loss.isfinite():
            lr = optimizer.param_groups[0]["lr"]
            raise FloatingPointError(
                f"the loss became {loss:.0f} at epoch {epoch}, step {step}, learning rate {lr:.3g}"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        seen += len(labels)
        total_loss += loss.item() * len(labels)
        likeliest = labels if labels.dim() == 1 else labels.argmax(dim=1)
        correct += (logits.argmax(dim=1) == likeliest).sum().item()
        bar.set_postfix(loss=f"{total_loss / seen:.4f}", refresh=False)
    return total_loss / seen, correct / seen


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], loss_function: Callable[[Tensor, Tensor], Tensor]
) -> tuple[float, float]:
    """Returns the mean loss and the share of right answers over every (images `[B, C, H, W]`, labels `[B]`)."""
    model.eval()
    device = next(model.parameters()).device
    total_loss, correct, seen = 0.0, 0, 0
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        logits = model(images)
        seen += len(labels)
        total_loss += loss_function(logits, labels).item() * len(labels)
        correct += (logits.argmax(dim=1) == labels).sum().item()
    return total_loss / seen, correct / seen


def plot_confusion(path: Path, labels: Tensor, predictions: Tensor, classes: Sequence[str] = "0123456789") -> None:
    """Draws how often each class was read as each other; the mistakes are coloured, the right answers only counted."""
    from matplotlib.figure import Figure  # takes a second, which every command would pay

    counts = torch.bincount(labels * 10 + predictions, minlength=100).view(10, 10)
    mistakes = counts.clone().fill_diagonal_(0)
    figure = Figure(figsize=(5.6, 5.7), layout="constrained")
    axes = figure.subplots()
    shades = mistakes.float().where(mistakes > 0, torch.nan)  # what never happened stays white
    axes.imshow(shades.numpy(), cmap="Reds", vmin=0, vmax=max(1, 1.5 * mistakes.max().item()))
    for truth, read in counts.nonzero().tolist():
        color = "dimgray" if truth == read else "black"
        axes.text(read, truth, f"{counts[truth, read]}", ha="center", va="center", color=color, fontsize=9)
    axes.set(title=f"Mistakes: {mistakes.sum()} of {len(labels):,}", xlabel="read as", ylabel="is")
    axes.set_xticks(range(10), classes, rotation=90 if len(classes[0]) > 1 else 0)
    axes.set_yticks(range(10), classes)
    with write_whole(path) as part:
        figure.savefig(part, dpi=150)


def plot_mistakes(path: Path, images: Tensor, labels: Tensor, scores: Tensor, most: int = 60) -> None:
    """Draws the digits that were read wrong, those first of which the network was surest."""
    from matplotlib.figure import Figure  # takes a second, which every command would pay

    sureness, predictions = scores.softmax(dim=1).max(dim=1)
    wrong = torch.nonzero(predictions != labels)[:, 0]
    wrong = wrong[sureness[wrong].argsort(descending=True, stable=True)]
    shown = wrong[:most]
    rows = max(1, -(-len(shown) // 10))
    figure = Figure(figsize=(10, 1.12 * rows + 0.5), layout="constrained")
    figure.suptitle(f"Mistakes: {len(shown)} of {len(wrong)}, the surest first; the digit, and what it was read as")
    for axes in figure.subplots(rows, 10, squeeze=False).flat:
        axes.axis("off")
    for axes, index in zip(figure.axes, shown, strict=False):
        axes.imshow(images[index, 0].numpy(), cmap="gray_r")
        axes.set_title(f"{labels[index]} read as {predictions[index]}", fontsize=9)
    with write_whole(path) as part:
        figure.savefig(part, dpi=150, bbox_inches="tight")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    epochs, batch_size = between(1, 1_000_000), between(1, 60_000)
    add("--epochs", type=epochs, help=f"times through the training set (default: {DEFAULTS['epochs']})")
    add("--batch-size", type=batch_size, help=f"digits a step (default: {DEFAULTS['batch_size']})")
    add("--lr", type=between(1e-12, 1e30), help=f"highest learning rate (default: {DEFAULTS['lr']})")
    add("--model", choices=["modern", "original"], help=f"network (default: {DEFAULTS['model']})")
    add("--no-augment", dest="augment", action="store_false", default=None, help="train on the digits as they are")
    seed_help = f"first weights, order, distortions (default: {DEFAULTS['seed']})"
    add("--seed", type=between(0, 2**32 - 1), help=seed_help)
    add("--data", type=Path, default=shipped("data/MNIST"), help="folder of MNIST/raw (default: data)")
    validate_help = f"train without the last {VALIDATION_DIGITS:,} digits and test on them, to choose settings"
    add("--validate", action="store_true", default=None, help=validate_help)
    add_run_arguments(parser, "lenet")
    return parser.parse_args()


def make_network(name: str) -> tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]:
    """The network called `name` and the loss that belongs to it."""
    return (LeNet5(), F.cross_entropy) if name == "modern" else (LeNet5Original(), original_loss)


def train(run: Run, train_set: tuple[Tensor, Tensor], test_set: tuple[Tensor, Tensor], device: torch.device) -> None:
    """Trains from the first epoch, or from the one after the run's checkpoint, and writes what came of it."""
    settings = run.settings
    epochs, seed, batch_size = settings["epochs"], settings["seed"], settings["batch_size"]
    test_name = "validation" if settings["validate"] else "test"
    train_images, train_labels = (tensor.to(device) for tensor in train_set)
    test_images, test_labels = (tensor.to(device) for tensor in test_set)
    test_batches = Batches(test_images, test_labels, batch_size=1000)

    torch.manual_seed(seed)
    model, loss_function = make_network(settings["model"])
    model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["lr"], weight_decay=WEIGHT_DECAY, fused=True)
    steps = epochs * -(-len(train_images) // batch_size)
    scheduler = OneCycleLR(optimizer, max_lr=settings["lr"], total_steps=steps)
    run.restore(model=model, optimizer=optimizer, scheduler=scheduler)

    for epoch in run.epochs(epochs):
        augment = random_affine if settings["augment"] else None
        batches = Batches(train_images, train_labels, batch_size, epoch_generator(seed, epoch), augment)
        train_loss, train_accuracy = train_epoch(model, batches, loss_function, optimizer, scheduler, epoch)
        test_loss, test_accuracy = evaluate(model, test_batches, loss_function)
        if not math.isfinite(test_loss):
            lr = scheduler.get_last_lr()[0]
            raise FloatingPointError(
                f"the loss became {test_loss} at epoch {epoch}, step {len(batches)} (its last), learning rate {lr:.3g}"
            )
        row = {"train_loss": train_loss, "train_accuracy": train_accuracy}
        row = run.record({**row, f"{test_name}_loss": test_loss, f"{test_name}_accuracy": test_accuracy})
        print(
            f"epoch {epoch}/{epochs}: train loss {train_loss:.4f}, train accuracy {train_accuracy:.2%}, "
            f"{test_name} accuracy {test_accuracy:.2%}, {row['seconds']:.1f} s",
            flush=True,
        )

    model.eval()  # no epoch has done it where the run was stopped after its last one
    with torch.inference_mode():
        scores = torch.cat([model(images) for images, _ in test_batches]).cpu()
    images, labels = (tensor.cpu() for tensor in test_set)
    predictions = scores.argmax(dim=1)
    plot_confusion(run.out / "confusion.png", labels, predictions)
    plot_mistakes(run.out / "mistakes.png", images, labels, scores)
    save_weights(run.out / "lenet.pth", model)
    trained = "training, on distorted digits" if settings["augment"] else "training"
    curves = {trained: "train", test_name: test_name}
    run.finish(loss_and_error(run.history, curves, "digits"))
    correct = (predictions == labels).sum().item()
    print(f"{test_name.capitalize()} accuracy: {correct / len(labels):.2%} ({correct}/{len(labels)})")


@command
def main() -> None:
    args = parse_arguments()
    with told():
        device = pick_device(args.device)
        train_set, test_set = load_mnist(args.data, train=True), load_mnist(args.data, train=False)
        run = Run("train_lenet.py", args, DEFAULTS, device)
    if run.settings["validate"]:
        images, labels = train_set
        train_set = images[:-VALIDATION_DIGITS], labels[:-VALIDATION_DIGITS]
        test_set = images[-VALIDATION_DIGITS:], labels[-VALIDATION_DIGITS:]
    with run:
        print(f"Training on {device}, writing to {run.out}", flush=True)
        train(run, train_set, test_set, device)


if __name__ == "__main__":
    main()
