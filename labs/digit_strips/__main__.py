"""Reads strips of up to five handwritten digits: a companion lab (the strips tutorial, sections 1.3 to 3).

    python -m labs.digit_strips lesson                      a Dataset's pieces, one-hot labels, two ways to save;
                                                            and runs/strip.png and runs/digit.png to try things on
    python -m labs.digit_strips train                       learns 280,000 pieces, is tested on 10,000 other strips
    python -m labs.digit_strips train --recipe tutorial     in the tutorial's way: SGD, pieces as they are
    python -m labs.digit_strips train --validate            tries settings without touching the test digits
    python -m labs.digit_strips train --out runs/mine --resume
    python -m labs.digit_strips read runs/strip.png         prints what it reads, such as 7_210: _ is a blank place
    python -m labs.digit_strips search --method random      cross-validation: see search.py
    python -m labs.digit_strips keep RUN                    its numbers and figure for README.md; a search's table too

`train` ends, give or take a few digits of another machine's rounding, with

    Test strips: 97.66% wholly right (9766/10000), pieces 99.53%

and its run's folder gets strips.png, result.json and digit_strips.pth beside the rest.
"""

import argparse
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR
from torch.utils.data import DataLoader

from labs.commands import copy_whole, drawing, lab_parser, name_of, of_run, to_keep
from labs.digit_strips import search
from labs.digit_strips.strips import (
    BLANK,
    CNN,
    PLACES,
    SIDE,
    Digits,
    StripPieces,
    cut,
    make_strips,
    one_hot,
    read_pieces,
    read_strip,
)
from labs.weights import load
from report.tables import RESULTS, write_json
from train_lenet import VALIDATION_DIGITS, WEIGHT_DECAY, Batches, evaluate, load_mnist, random_affine, train_epoch
from training import (
    Row,
    Run,
    add_run_arguments,
    between,
    command,
    epoch_generator,
    loss_and_error,
    pick_device,
    save_weights,
    told,
    write_whole,
)

SCRIPT = "digit_strips.py"
PIECES, TEST_STRIPS = 280_000, 10_000
RECIPES = {
    "ours": {"epochs": 4, "batch_size": 256, "lr": 0.003, "augment": 1.0},
    "tutorial": {"epochs": 5, "batch_size": 60, "lr": 0.001, "augment": 0.0},
}
DEFAULTS = {"recipe": "ours", **RECIPES["ours"], "seed": 0, "validate": False, "quick": False}


class Trap:
    """What an evil file may hold: unpickled, it calls a function of the file's choice."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return print, ("  this line was printed by the file; it could as well have deleted yours",)


def lesson(digits: Digits) -> None:
    """What sections 1.3, 1.4.2 and 2.3 show; and a strip and a digit as pictures, for `read` and other labs."""
    strips, labels = make_strips(digits, count=12, seed=0)
    for name, picture in (("strip", strips[0]), ("digit", strips[0, :, :SIDE])):
        path = Path("runs", f"{name}.png")
        path.parent.mkdir(exist_ok=True)
        with write_whole(path) as part:
            Image.fromarray(255 - picture.numpy()).save(part, format="PNG")
        print(f"Written: {path}")
    dataset = StripPieces(strips, labels, one_hot)
    pieces, targets = next(iter(DataLoader(dataset, batch_size=60)))
    print(f"{len(dataset)} pieces; a batch has pieces {list(pieces.shape)} and one-hot labels {list(targets.shape)}")
    print(f"label {labels[0, 0]} as one-hot: {targets[0].int().tolist()}")
    torch.manual_seed(0)
    network = CNN()
    scores = network(pieces)
    by_label, by_vector = F.nll_loss(scores, labels.flatten()), -(targets * scores).sum(dim=1).mean()
    print(f"loss by labels {by_label:.4f}, by one-hot vectors {by_vector:.4f}")

    with tempfile.TemporaryDirectory() as folder:
        whole, weights, trap = (Path(folder, f"{name}.pth") for name in ("whole", "weights", "trap"))
        torch.save(network, whole)
        torch.save(network.state_dict(), weights)
        torch.save(Trap(), trap)
        print(f"whole network: {whole.stat().st_size:,} bytes; its weights: {weights.stat().st_size:,} bytes")
        for path in (whole, trap):
            try:
                torch.load(path, weights_only=True)
            except pickle.UnpicklingError:
                print(f"torch.load({path.name}, weights_only=True) refuses it: it names code that it wants run")
            print(f"torch.load({path.name}, weights_only=False) does what it says:")
            loaded = torch.load(path, weights_only=False)  # only these two files, just made here
            print(f"  a {type(loaded).__name__}")
        again = CNN()
        again.load_state_dict(torch.load(weights, weights_only=True))
        same = torch.equal(again.eval()(pieces), network.eval()(pieces))
        print(f"load_state_dict(torch.load(weights.pth, weights_only=True)): the same answers: {same}")


def begin(settings: Row, steps: int, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer, LRScheduler]:
    """The network as it is before its first step, its optimizer, and its learning rate over all `steps`."""
    torch.manual_seed(settings["seed"])
    network = CNN().to(device)
    if settings["recipe"] == "tutorial":
        optimizer = torch.optim.SGD(network.parameters(), lr=settings["lr"], momentum=0.9)
        return network, optimizer, ConstantLR(optimizer, factor=1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings["lr"], weight_decay=WEIGHT_DECAY, fused=True)
    return network, optimizer, OneCycleLR(optimizer, max_lr=settings["lr"], total_steps=steps)


def train(run: Run, digits: Digits, test_digits: Digits, device: torch.device) -> None:
    """Trains from the first epoch, or from the one after the run's checkpoint, and writes what came of it."""
    settings = run.settings
    epochs, seed, batch_size = settings["epochs"], settings["seed"], settings["batch_size"]
    test_name = "validation" if settings["validate"] else "test"
    count, test_count = (600, 200) if settings["quick"] else (PIECES // PLACES, TEST_STRIPS)
    strips, labels = make_strips(digits, count, seed)
    # 280,000 pieces are 220 MB as bytes, and one index takes a batch of them. A DataLoader would cut and stack as many
    # small tensors in every epoch: report/README.md measures what that costs.
    pieces, labels = cut(strips).to(device), labels.flatten().to(device)
    test_strips, test_labels = make_strips(test_digits, test_count, seed=0)  # the same whatever the seed
    test_pieces = cut(test_strips) / 255

    def distort(part: Tensor, generator: torch.Generator) -> Tensor:
        return random_affine(part / 255, generator, settings["augment"]) if settings["augment"] else part / 255

    network, optimizer, scheduler = begin(settings, epochs * -(-len(pieces) // batch_size), device)
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
        **of_run(run),
        "pictures": f"MNIST's digits in {count} strips to learn and {test_count} to be tested on",
        "strips": test_count,
        "strips_right": strips_right,
        "strips_accuracy": strips_right / test_count,
        "pieces": right.numel(),
        "pieces_wrong": (~right).sum().item(),
        "pieces_accuracy": right.double().mean().item(),
        "blanks": (test_labels == BLANK).sum().item(),
        "mistakes_with_blanks": (~right & ((test_labels == BLANK) | (read == BLANK))).sum().item(),
    }
    write_json(run.out / "result.json", result)
    plot_strips(run.out / "strips.png", test_strips, test_labels, read)
    save_weights(run.out / "digit_strips.pth", network, torch.float16)
    curves = {"training, on distorted pieces" if settings["augment"] else "training": "train", test_name: test_name}
    run.finish(loss_and_error(run.history, curves, "pieces"))
    print(
        f"{test_name.capitalize()} strips: {strips_right / test_count:.2%} wholly right ({strips_right}/{test_count}), "
        f"pieces {result['pieces_accuracy']:.2%}"
    )


def plot_strips(path: Path, strips: Tensor, labels: Tensor, read: Tensor, shown: int = 9) -> None:
    """Draws strips that were read right in the left column, and in the middle and on the right some that were not."""
    wrong = (read != labels).any(dim=1)
    columns = [torch.nonzero(~wrong)[:shown, 0], *torch.nonzero(wrong)[: 2 * shown, 0].split(shown)]
    with drawing(path, 10, 0.93 * shown + 0.2) as figure:
        grid = figure.subplots(shown, 3)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color("0.8")
        for column, indices in enumerate(columns):
            for axes, index in zip(grid[:, column], indices.tolist(), strict=False):
                axes.imshow(strips[index].numpy(), cmap="gray_r")
                truth, reading = ("".join("0123456789_"[label] for label in row[index]) for row in (labels, read))
                if truth == reading:
                    axes.set_title(reading, fontsize=11, family="monospace")
                else:
                    axes.set_title(f"{reading} (is {truth})", fontsize=11, family="monospace", color="tab:red")


def keep(run: Path) -> None:
    """Copies what a finished run, or a search's table, says to where the text reads it."""
    if run.suffix == ".csv":
        return search.keep(run)
    settings = {**DEFAULTS, **to_keep(run, SCRIPT)}  # an older version's run has no recipe
    recipe = settings["recipe"]
    base = "digit_strips" if recipe == "ours" else f"digit_strips_{recipe}"
    name = name_of(base, settings, {**DEFAULTS, **RECIPES[recipe], "recipe": recipe})
    copy_whole(run / "result.json", RESULTS / "labs" / f"{name}.json")
    if name == "digit_strips":
        copy_whole(run / "strips.png", Path(__file__).with_name("strips.png"))


def parse_arguments() -> argparse.Namespace:
    parser = lab_parser("digit_strips", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    names = ("lesson", "train", "read", "search", "keep")
    learning, training, reading, searching, keeping = (commands.add_parser(name) for name in names)
    for one in (learning, training, searching):
        one.add_argument("--data", type=Path, default=Path("data"), help="folder of MNIST/raw")
    add = training.add_argument
    add("--recipe", choices=list(RECIPES), help="(default: ours); it sets what has no default below")
    add("--epochs", type=between(1, 10**6), help="times through the pieces")
    add("--batch-size", type=between(1, PIECES), help="pieces a step")
    add("--seed", type=between(0, 2**32 - 1), help="strips, first weights, order, distortions (default: 0)")
    add("--lr", type=between(1e-12, 1e30), help="highest learning rate")
    add("--augment", type=between(0.0, 2.0), help="strength of the distortions (0: none)")
    add("--validate", action="store_true", default=None, help="test on strips of training digits kept back")
    add("--quick", action="store_true", default=None, help="3,000 pieces and 200 test strips")
    add_run_arguments(training, "digit_strips")
    reading.add_argument("picture", type=Path, help="one to five square places side by side")
    reading.add_argument("--model", type=Path, help="a run's weights (default: the repository's)")
    add = searching.add_argument
    add("--method", choices=search.METHODS, default="random")
    add("--trials", type=between(1, 10**4), default=16, help="settings to try (default: 16)")
    add("--folds", type=between(2, 20), default=3, help="trainings of each (default: 3)")
    add("--pieces", type=between(5, PIECES), default=6000, help="that a training learns (default: 6000)")
    add("--quick", action="store_true", help="2 trials of 2 folds of 500 pieces")
    add("--out", type=Path, default=Path("runs/digit_strips_search"), help="(default: %(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    keeping.add_argument("run", type=Path, metavar="RUN", help="a finished run's folder, or METHOD.csv of a search")
    return parser.parse_args()


@command
def main() -> None:
    args = parse_arguments()
    with told():
        if args.command == "keep":
            return keep(args.run)
        if args.command == "read":
            return print(read_strip(load("digit_strips", args.model), args.picture))
        digits = load_mnist(args.data, train=True)
        if args.command == "lesson":
            return lesson(digits)
        device = pick_device(args.device)
        if args.command == "search":
            return search.search(args, digits, device)
        test_digits = load_mnist(args.data, train=False)
        run = Run(SCRIPT, args, {**DEFAULTS, **RECIPES[args.recipe or "ours"]}, device)
    if run.settings["validate"]:
        images, labels = digits
        digits = images[:-VALIDATION_DIGITS], labels[:-VALIDATION_DIGITS]
        test_digits = images[-VALIDATION_DIGITS:], labels[-VALIDATION_DIGITS:]
    with run:
        print(f"Training on {device}, writing to {run.out}", flush=True)
        train(run, digits, test_digits, device)


if __name__ == "__main__":
    main()
