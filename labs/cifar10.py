"""Ten kinds of things in pictures of 32x32: the CIFAR-10 lab (seed 001, "CNN-Classifier for CIFAR-10 with PyTorch").

    python -m labs.cifar10 train --recipe seed          the seed's network and training
    python -m labs.cifar10 train --recipe fast          ours: more right, in less time
    python -m labs.cifar10 train --recipe fast --validate     tested on 5,000 training pictures kept back
    python -m labs.cifar10 train --out runs/mine --resume
    python -m labs.cifar10 evaluate runs/mine           accuracy, confusion, the surest mistakes
    python -m labs.cifar10 ladder                       the fast recipe without each of its tricks, in small

`train` ends with a line such as

    Test accuracy: 91.45% (9145/10000); plain 90.46%, with mirror images 91.15%, with shifted copies too 91.45%

and its run's folder gets result.json, confusion.png, mistakes.png and cifar10.pth beside the rest. The networks stand
in cifar_networks.py, the recipes in cifar_recipes.py, reading and drawing pictures in cifar_pictures.py.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labs.cifar_networks import FastCNN, load_network, training_operations
from labs.cifar_pictures import Pictures, TimedBatches, checksum, load_cifar, plot_mistakes
from labs.cifar_recipes import (
    BIAS_EPOCHS,
    LOOKAHEAD_PICTURES,
    TRICKS,
    look_ahead,
    loss,
    make_network,
    make_optimizer,
    recipe_of,
    score,
    sides,
    variation,
)
from lenet import count_parameters
from report.benchmark import machine
from report.experiments import read_table
from train_lenet import Batches, evaluate, plot_confusion, train_epoch
from training import Run, add_run_arguments, epoch_generator, pick_device, save_weights, write_rows, write_whole

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "report" / "results" / "labs"
SCRIPT = "labs/cifar10.py"
DEFAULTS = {"recipe": "fast", "without": "nothing", "seed": 0, "validate": False, "quick": False, "pictures": None}
QUICK_PICTURES = 120


def train(run: Run, training: Pictures, testing: Pictures, device: torch.device) -> nn.Sequential:
    """Trains from the first epoch, or from the one after the run's checkpoint; the run's history says how it went."""
    seed, recipe = run.settings["seed"], recipe_of(run.settings)
    epochs, batch_size, tricks = recipe["epochs"], recipe["batch_size"], recipe["tricks"]
    test_name = "validation" if run.settings["validate"] else "test"
    had, run.settings["pictures"] = run.settings["pictures"], checksum(training)
    if had not in (None, run.settings["pictures"]):
        sys.exit(f"error: {run.out} was begun with other pictures ({had}): give another --out")
    pictures, labels = (tensor.to(device) for tensor in training)
    test_batches = Batches(testing[0].to(device) / 255, testing[1].to(device), batch_size=500)

    torch.manual_seed(seed)
    network = make_network(recipe, training[0]).to(device)
    steps = epochs * -(-len(labels) // batch_size)
    optimizer, scheduler = make_optimizer(recipe, network, steps)
    parts = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
    if "averaging" in tricks:
        every = max(1, LOOKAHEAD_PICTURES // batch_size)
        parts["average"] = look_ahead(optimizer, scheduler, network, every, steps)
    run.restore(**parts)
    even_and_odd = sides(recipe, pictures, seed)

    for epoch in run.epochs(epochs):
        torch.manual_seed(epoch_generator(seed, epoch, index=1).initial_seed())  # for dropout
        if "whitening" in tricks:
            network.network.first.bias.requires_grad_(epoch <= BIAS_EPOCHS)
        generator = epoch_generator(seed, epoch)
        batches = TimedBatches(even_and_odd[epoch % 2], labels, batch_size, generator, variation(recipe))
        began = time.perf_counter()
        train_loss, train_accuracy = train_epoch(network, batches, loss(recipe), optimizer, scheduler, epoch)
        seconds = time.perf_counter() - began
        test_loss, test_accuracy = evaluate(network, test_batches, F.cross_entropy)
        row = {"train_loss": train_loss, "train_accuracy": train_accuracy}
        row |= {f"{test_name}_loss": test_loss, f"{test_name}_accuracy": test_accuracy}
        row = run.record({**row, "step_seconds": seconds / len(batches), "data_share": batches.seconds / seconds})
        print(
            f"epoch {epoch}/{epochs}: train loss {train_loss:.4f}, train accuracy {train_accuracy:.2%}, "
            f"{test_name} accuracy {test_accuracy:.2%}, {row['seconds']:.0f} s",
            flush=True,
        )
    return network


def share_right(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(dim=1) == labels).double().mean().item()


def judge(folder: Path, network: nn.Sequential, testing: Pictures, classes: list[str], name: str) -> dict[str, float]:
    """Draws confusion and mistakes into `folder`, prints the accuracy, and returns it for each way to look."""
    pictures, labels = testing
    scores = score(network, pictures)
    answer = scores["copies" if isinstance(network.network, FastCNN) else "plain"]  # the seed looks once
    plot_confusion(folder / "confusion.png", labels, answer.argmax(dim=1), classes)
    plot_mistakes(folder / "mistakes.png", pictures, labels, answer, classes)
    right = {"accuracy": share_right(answer, labels)}
    right |= {name: share_right(logits, labels) for name, logits in scores.items()}
    print(
        f"{name.capitalize()} accuracy: {right['accuracy']:.2%} ({right['accuracy'] * len(labels):.0f}/{len(labels)}); "
        f"plain {right['plain']:.2%}, with mirror images {right['mirrored']:.2%}, "
        f"with shifted copies too {right['copies']:.2%}"
    )
    return right


def finish(run: Run, network: nn.Sequential, training: Pictures, testing: Pictures, classes: list[str]) -> None:
    """Writes what came of a training."""
    name = "validation" if run.settings["validate"] else "test"
    right = judge(run.out, network, testing, classes, name)
    epochs, pictures = len(run.history), len(training[1])
    operations = training_operations(network)
    result = {
        **run.settings,
        **right,
        "epochs": epochs,
        "pictures": pictures,
        "parameters": count_parameters(network),
        "operations_a_picture": operations,
        "petaflop": operations * epochs * pictures / 1e15,
        "seconds": sum(row["seconds"] for row in run.history),
        "step_seconds": mean(row["step_seconds"] for row in run.history),
        "data_share": mean(row["data_share"] for row in run.history),
        "colours": {name: getattr(network.standardize, name).flatten().tolist() for name in ("mean", "deviation")},
        "machine": machine(),
    }
    with write_whole(run.out / "result.json") as part:
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    save_weights(run.out / "cifar10.pth", network)
    curves = {"training, varied": "train", name: name}
    losses = {label: [row[f"{name}_loss"] for row in run.history] for label, name in curves.items()}
    errors = {label: [100 - 100 * row[f"{name}_accuracy"] for row in run.history] for label, name in curves.items()}
    run.finish({"Loss": losses, "Error, % of the pictures": errors})


def keep_back(training: Pictures) -> tuple[Pictures, Pictures]:
    """Pictures to learn, and the last tenth to choose by: 5,000 of CIFAR-10's."""
    pictures, labels = training
    count = len(labels) - len(labels) // 10
    return (pictures[:count], labels[:count]), (pictures[count:], labels[count:])


def ladder(training: Pictures, device: torch.device) -> None:
    """The fast recipe in small, with every trick, without each, and without all: a row of RESULTS for each training.

    Expected: whitening, the biases' rate and small batches give most, for they make the beginning fast; shifts cost in
    five epochs what they give in sixteen; the others stay within the chance of 5,000 pictures.
    """
    training, testing = keep_back(training)
    RESULTS.mkdir(parents=True, exist_ok=True)
    table = RESULTS / "cifar10_ladder.csv"
    for without in ("nothing", *TRICKS, "all"):
        rows = read_table(table)
        if any(row["without"] == without for row in rows):
            continue
        settings = {**DEFAULTS, "recipe": "ladder", "without": without, "validate": True}
        out = ROOT / "runs" / "labs" / "cifar10_ladder" / without.replace(" ", "_")
        args = argparse.Namespace(out=out, resume=True, tensorboard=False, **settings)
        with Run(SCRIPT, args, DEFAULTS, device) as run:
            try:
                network = train(run, training, testing, device)
            except KeyboardInterrupt:
                print("\nStopped. The same command goes on.", file=sys.stderr)
                sys.exit(130)
        right = {name: share_right(logits, testing[1]) for name, logits in score(network, testing[0]).items()}
        whole = float(rows[0]["copies"]) if rows else right["copies"]
        row = {"without": without, **right, "gained_points": round(100 * (whole - right["copies"]), 2)}
        row["seconds"] = round(sum(row["seconds"] for row in run.history))
        write_rows(table, [*rows, row])
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    parsers = {name: commands.add_parser(name) for name in ("train", "evaluate", "ladder")}
    training = parsers["train"]
    training.add_argument("--recipe", choices=("seed", "fast"), help="(default: fast)")
    training.add_argument("--seed", type=int, help="first weights, order, variation (default: 0)")
    training.add_argument("--validate", action="store_true", default=None, help="test on training pictures kept back")
    training.add_argument("--quick", action="store_true", default=None, help="120 pictures, to see that it runs")
    add_run_arguments(training, "cifar10")
    training.set_defaults(without=None, pictures=None)
    parsers["evaluate"].add_argument(
        "weights", type=Path, metavar="RUN_OR_WEIGHTS", help="a run's folder or cifar10.pth"
    )
    for name in ("evaluate", "ladder"):
        parsers[name].add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    for one in parsers.values():
        one.add_argument(
            "--data", type=Path, default=Path("data/cifar10"), metavar="DIR", help="(default: data/cifar10)"
        )
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    try:
        device = pick_device(args.device)
        if args.command == "evaluate":
            run_given = args.weights.is_dir()
            network = load_network(args.weights / "cifar10.pth" if run_given else args.weights).to(device)
            *testing, classes = load_cifar(args.data, "test")
            folder = args.weights if run_given else Path("runs", f"{args.weights.stem}-evaluated")
            folder.mkdir(parents=True, exist_ok=True)
            judge(folder, network, testing, classes, "test")
            return
        if args.command == "ladder":
            *training, _ = load_cifar(args.data, "train")
            ladder(training, device)
            return
        if args.seed is not None and not 0 <= args.seed < 2**32:
            raise ValueError(f"--seed must be from 0 to {2**32 - 1}, not {args.seed}")
        run = Run(SCRIPT, args, DEFAULTS, device)
        count = QUICK_PICTURES if run.settings["quick"] else None
        *training, classes = load_cifar(args.data, "train", count)
        if run.settings["validate"]:
            training, testing = keep_back(training)
        else:
            *testing, tested = load_cifar(args.data, "test", count)
            if tested != classes:
                raise ValueError(f"the classes in {args.data / 'train'} and {args.data / 'test'} are not the same")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    with run:
        print(f"Training on {device}, writing to {run.out}", flush=True)
        finish(run, train(run, training, testing, device), training, testing, classes)


if __name__ == "__main__":
    main()
