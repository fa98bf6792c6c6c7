"""Tells cats from dogs: a companion lab (the cats and dogs tutorial).

    python -m labs.cats_dogs prepare PetImages                                       3,000 pictures into folders
    python -m labs.cats_dogs train --data data/cats_dogs/train                       our small network, in our way
    python -m labs.cats_dogs train --data data/cats_dogs/train --network resnet34    the tutorial's, in its way
    python -m labs.cats_dogs train --data data/cats_dogs/train --val-percent 0       learns from all, keeps none back
    python -m labs.cats_dogs train --data data/cats_dogs/train --out runs/mine --resume
    torchrun --nproc-per-node=2 -m labs.cats_dogs train --data data/cats_dogs/train
    python -m labs.cats_dogs validate --data data/cats_dogs/val
    python -m labs.cats_dogs predict PHOTO.jpg ...
    python -m labs.cats_dogs compare RUN ... --data data/cats_dogs/val               the lab's numbers and curves

A folder of pictures has two folders in it, `cat` and `dog`; `prepare` makes two such of Kaggle's flat folder as well.
`validate` ends with lines such as

    cat: 471 taken for cat, 29 taken for dog
    dog: 35 taken for cat, 465 taken for dog
    Accuracy: 93.60% (936/1000)

and `predict` prints one such as `felix.jpg: cat 97.3%` for each photo; both take the repository's own weights unless
`--model` names others. `--table report/results/labs/cats_dogs_confusion.csv` keeps those lines as the lab's table. A
run's folder gets `cats_dogs.pth` beside the rest: the weights of the epoch that was best on the pictures kept back, or
of the last epoch where none are.
"""

import argparse
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from carvana import fingerprint
from labs.cats_dogs.pictures import find_pictures, load_pictures, normalize, prepare, shrink, split
from labs.cats_dogs.recipes import DEFAULTS, MIXING, STAGES, begin_training, distort, whole_size
from labs.cats_dogs.scores import compare, predict, save_network, validate
from labs.commands import lab_parser
from labs.resnet import NETWORKS
from labs.weights import load
from train_lenet import Batches, evaluate
from train_unet import epoch_batches, parse_stages, train_steps
from training import (
    Run,
    add_run_arguments,
    agree,
    between,
    command,
    epoch_generator,
    is_main,
    join_processes,
    pick_device,
    together,
    told,
)

SCRIPT = "labs/cats_dogs.py"
QUICK_STAGES, QUICK_PICTURES = "32:2:8", 40


def train(run: Run, images: Tensor, labels: Tensor, device: torch.device) -> None:
    """Trains on bytes `[N, 3, H, W]` and labels `[N]` from the first step, or from the one after the checkpoint."""
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    settings, seed = run.settings, run.settings["seed"]
    training, kept_back = split(len(images), settings["val_percent"], seed)
    epochs = [(size, batch_size) for size, count, batch_size in parse_stages(settings["stages"]) for _ in range(count)]
    last_size = epochs[-1][0]
    steps = sum(len(training) // batch_size for _, batch_size in epochs)
    network, optimizer, scheduler, way = begin_training(settings, steps, device)
    run.restore(network=network, optimizer=optimizer, scheduler=scheduler)
    net = DistributedDataParallel(network) if ranks > 1 else network

    def samples() -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(run.steps_done, len(batches)):
            index, generator = training[batches[step]], epoch_generator(seed, epoch, 1 + step * ranks + rank)
            if settings["recipe"] == "seed":
                yield normalize(pictures[index]), labels[index]
            else:  # mixed ever more often: mixed pictures are hard to begin with
                yield distort(pictures[index], labels[index], size, generator, MIXING * epoch / len(epochs))

    pictures = images
    for epoch in run.epochs(len(epochs)):
        size, batch_size = epochs[epoch - 1]
        whole = whole_size(size, settings["recipe"])
        if pictures.shape[-1] != whole:
            pictures = shrink(images, whole)
        batches = epoch_batches(len(training), batch_size, epoch_generator(seed, epoch), rank, ranks)
        if run.writer is not None and epoch == 1 and not run.steps_done:
            from torchvision.utils import make_grid  # takes as long to import as PyTorch itself

            shown, _ = next(samples())
            run.writer.add_image("pictures", make_grid(shown, normalize=True, value_range=(-1, 1)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch's own way to trace a network is deprecated
                run.writer.add_graph(network, shown.to(device))
        name, done = f"epoch {epoch}/{len(epochs)} at {size}x{size}", run.steps_done
        quiet = rank > 0 or None  # None: where standard error is no terminal
        bar = tqdm(samples(), name, len(batches), initial=done, unit="step", leave=False, disable=quiet)
        for loss in train_steps(net, bar, optimizer, scheduler, epoch, done + 1, **way):
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            run.step({"epoch": epoch, "size": size, "loss": round(loss, 6)})
        if not is_main():
            run.record({})  # the others only count their epochs
            continue

        row = {"size": size, "train_loss": sum(row["loss"] for row in run.losses[-len(batches) :]) / len(batches)}
        said = f"{name}: train loss {row['train_loss']:.4f}"
        if len(kept_back):
            parts = Batches(pictures[kept_back], labels[kept_back], 100)
            loss, accuracy = evaluate(network, ((normalize(part), answer) for part, answer in parts), F.cross_entropy)
            row |= {"validation_loss": loss, "validation_accuracy": round(accuracy, 6)}
            said += f", validation accuracy {accuracy:.2%}"
        # Only weights that were trained at the last size are candidates: it is the size that they will be used at.
        rivals = [old["validation_accuracy"] for old in run.history if old["size"] == last_size and len(kept_back)]
        if size == last_size and all(row["validation_accuracy"] > rival for rival in rivals):
            save_network(run.out / "cats_dogs.pth", network, settings["network"], whole, settings["recipe"] == "ours")
        print(f"{said}, {run.record(row)['seconds']:.0f} s", flush=True)

    if is_main():
        panels = {"Loss": {"training": [row["train_loss"] for row in run.history]}}
        if len(kept_back):
            panels["Loss"]["pictures kept back"] = [row["validation_loss"] for row in run.history]
            errors = [100 - 100 * row["validation_accuracy"] for row in run.history]
            panels["Error, % of the pictures kept back"] = {"validation": errors}
        run.finish(panels)
        print(f"To test it: python -m labs.cats_dogs validate --data DIR --model {run.out / 'cats_dogs.pth'}")


def begin(args: argparse.Namespace, device: torch.device) -> Run:
    """The run that is asked for; nothing is written. Raises ValueError, OSError or Finished."""
    run, ranks = Run(SCRIPT, args, {**DEFAULTS, "pictures": None}, device), int(os.environ.get("WORLD_SIZE", 1))
    settings = run.settings
    settings["recipe"] = settings["recipe"] or ("ours" if settings["network"] == "small" else "seed")
    settings["stages"] = settings["stages"] or (QUICK_STAGES if settings["quick"] else STAGES[settings["recipe"]])
    for size, _, batch_size in parse_stages(settings["stages"]):
        if batch_size % ranks:
            raise ValueError(f"a batch of {batch_size} cannot be shared equally by {ranks} processes")
        if batch_size == ranks and size <= 32 and settings["network"] != "plain":  # its last maps may be single pixels
            raise ValueError(f"BatchNorm needs more than one picture of {size}x{size} at a time: choose larger batches")
    return run


def read_data(run: Run, data: Path) -> tuple[Tensor, Tensor]:
    """The run's pictures, as large as its stages need them, and their labels; ValueError if they do not fit it."""
    settings = run.settings
    stages = parse_stages(settings["stages"])
    found = find_pictures(data)
    if settings["quick"]:
        found = found[:: max(1, len(found) // QUICK_PICTURES)]
    largest = max(whole_size(size, settings["recipe"]) for size, _, _ in stages)
    images, labels, pictures = load_pictures(found, largest, quiet=not is_main())
    had, settings["pictures"] = settings["pictures"], fingerprint(pictures)
    if had not in (None, settings["pictures"]):
        raise ValueError(f"{data} holds {settings['pictures']}, but the run was begun with {had}")
    training, kept_back = split(len(images), settings["val_percent"], settings["seed"])
    largest_batch = max(batch_size for _, _, batch_size in stages)
    if largest_batch > len(training):
        raise ValueError(f"a batch of {largest_batch} is more than the {len(training)} pictures to train on")
    if is_main():
        print(f"using {len(training)} images for training, {len(kept_back)} images for validation.")
    return images, labels


def parse_arguments() -> argparse.Namespace:
    parser = lab_parser("cats_dogs", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    names = ("prepare", "train", "validate", "predict", "compare")
    preparing, training, validating, predicting, comparing = (commands.add_parser(name) for name in names)
    preparing.add_argument("source", type=Path, metavar="DIR", help="Kaggle's cat.0.jpg, ... or Microsoft's PetImages")
    preparing.add_argument("--out", type=Path, default="data/cats_dogs", metavar="DIR", help="(default: %(default)s)")
    for one in (training, validating):
        one.add_argument("--data", type=Path, required=True, metavar="DIR", help="a folder of cat/ and dog/")
    add = training.add_argument
    add("--network", choices=list(NETWORKS), help="(default: small)")
    add("--recipe", choices=list(STAGES), help="(default: ours for small, else the tutorial's)")
    add("--stages", metavar="SIZE:EPOCHS:BATCH,...", help="several sizes in turn (default: as the recipe says)")
    add("--val-percent", type=between(0.0, 0.999), help="share of the pictures that is kept back (default: 0.2)")
    add("--seed", type=between(0, 2**32 - 1), help="first weights, split, order, distortions (default: 0)")
    add("--quick", action="store_true", default=None, help="40 small pictures, to see that it runs")
    training.set_defaults(pictures=None)
    add_run_arguments(training, "cats_dogs")
    validating.add_argument("--table", type=Path, metavar="FILE.csv", help="writes what was taken for what, too")
    for one in (validating, predicting):
        one.add_argument("--model", type=Path, help="a run's folder or cats_dogs.pth (default: the repository's)")
    for one in (validating, predicting, comparing):
        one.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    predicting.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    comparing.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="the folder of a finished run")
    comparing.add_argument(
        "--data", type=Path, default="data/cats_dogs/val", metavar="DIR", help="(default: %(default)s)"
    )
    return parser.parse_args()


def answer(args: argparse.Namespace) -> None:
    """The commands that do not train."""
    if args.command == "prepare":
        return prepare(args.source, args.out)
    device = pick_device(args.device)
    if args.command == "compare":
        return compare(SCRIPT, args.runs, args.data, device)
    network = load("cats_dogs", args.model, device)
    if args.command == "predict":
        return predict(network, args.photos)
    validate(network, args.data, args.table)


@command
def main() -> None:
    args = parse_arguments()
    with told():
        if args.command != "train":
            return answer(args)
        device = join_processes(args.device)
        run = together(lambda: begin(args, device))
        images, labels = together(lambda: read_data(run, args.data))
        agree(run.settings["pictures"], f"the pictures in {args.data} are not the same for all processes")
    with run:
        if is_main():
            print(f"Using device {device}, writing to {run.out}", flush=True)
        train(run, images, labels, device)


if __name__ == "__main__":
    main()
