"""Ten kinds of things in pictures of 32x32: a lab (the CIFAR tutorial, "CNN-Classifier for CIFAR-10 with PyTorch").

    python -m labs.cifar10 train --recipe seed          the tutorial's network and training
    python -m labs.cifar10 train --recipe fast          ours: more right, in less time
    python -m labs.cifar10 train --recipe fast --validate     tested on 5,000 training pictures kept back
    python -m labs.cifar10 train --out runs/mine --resume
    python -m labs.cifar10 evaluate                     accuracy, confusion, the surest mistakes; of runs/mine, too
    python -m labs.cifar10 predict PICTURE.jpg ...      any pictures, pressed into small squares
    python -m labs.cifar10 layers                       both networks: what each layer gives, and their megabytes
    python -m labs.cifar10 keep runs/mine               its numbers and figures for README.md
    python -m labs.cifar10 ladder                       the fast recipe without each of its tricks, in small
    python -m labs.cifar10 speed                        what the steps of either way cost

`train` ends with a line such as

    Test accuracy: 91.43% (9143/10000); plain 90.60%, with mirror images 91.27%, with shifted copies too 91.43%

and its run's folder gets result.json, pictures.png (some plain, and varied), confusion.png, mistakes.png and
cifar10.pth beside the rest; `evaluate` and `predict` take the repository's weights, or a run's. The networks stand
in networks.py, the recipes and the training in recipes.py, reading and drawing pictures in pictures.py.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

from labs.cifar10.networks import CifarCNN, FastCNN, megabytes, output_shapes, training_operations
from labs.cifar10.pictures import CLASSES, Pictures, load_cifar, open_small, plot_mistakes, plot_variation
from labs.cifar10.recipes import (
    DEFAULTS,
    QUICK_PICTURES,
    TIMED_PICTURES,
    TRICKS,
    first_epochs,
    keep_back,
    score,
    speed,
    train,
)
from labs.commands import copy_whole, lab_parser, name_of, of_run, to_keep
from labs.weights import NETWORKS, load
from lenet import count_parameters
from report.harness import run_in
from report.tables import RESULTS, go_on, means, read_json, read_rows, write_json
from train_lenet import plot_confusion
from training import (
    ROOT,
    Row,
    Run,
    add_run_arguments,
    between,
    command,
    loss_and_error,
    pick_device,
    save_weights,
    told,
    write_rows,
)

SCRIPT = "labs/cifar10.py"
PICTURES = "50000 with checksum 5bb98d95"  # the JPEG copies
SUMMED_UP = ("recipe", "seed", "parameters", "epochs", "petaflop", "seconds", "data_share")
SUMMED_UP += ("plain", "mirrored", "copies")  # of the runs of a recipe


def share_right(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(dim=1) == labels).double().mean().item()


def answer_of(network: nn.Sequential, scores: dict[str, Tensor]) -> Tensor:
    """Of `score`'s logits those that count: the tutorial looks once at a picture, we at its copies, too."""
    return scores["copies" if isinstance(network.network, FastCNN) else "plain"]


def judge(folder: Path, network: nn.Sequential, testing: Pictures, classes: list[str], name: str) -> dict[str, float]:
    """Draws confusion and mistakes into `folder`, prints the accuracy, and returns it for each way to look."""
    pictures, labels = testing
    scores = score(network, pictures)
    answer = answer_of(network, scores)
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
    """Writes what came of a training. What is judged are the weights as their file has them, rounded to float16."""
    save_weights(run.out / "cifar10.pth", network, torch.float16)
    kept = load("cifar", run.out, next(network.parameters()).device)
    name = "validation" if run.settings["validate"] else "test"
    right, operations = judge(run.out, kept, testing, classes, name), training_operations(network)
    result = {
        **of_run(run),
        **right,
        "learned": run.history[-1]["learned_accuracy"],
        "parameters": count_parameters(network),
        "operations_a_picture": operations,
        "petaflop": operations * len(run.history) * len(training[1]) / 1e15,
        "step_seconds": mean(row["step_seconds"] for row in run.history),
        "data_share": mean(row["data_share"] for row in run.history),
        "colours": {name: getattr(network.standardize, name).flatten().tolist() for name in ("mean", "deviation")},
    }
    write_json(run.out / "result.json", result)
    curves = {"training, varied": "train", "training, as they are": "learned", name: name}
    run.finish(loss_and_error(run.history, curves, "pictures"))


def keep(run: Path) -> None:
    """Copies what a finished run says to where the text reads it, and sums up what is kept of either recipe."""
    settings = to_keep(run, SCRIPT)
    if not settings["validate"] and settings["pictures"] != PICTURES:
        raise ValueError(f"{run} learned other pictures ({settings['pictures']}) than the page is about ({PICTURES})")
    name = name_of(f"cifar10_{settings['recipe']}", settings, {key: DEFAULTS[key] for key in ("seed", "validate")})
    copy_whole(run / "result.json", RESULTS / "labs" / f"{name}.json")
    for figure in ("confusion.png", "curves.png") if name == "cifar10_fast" else ():
        copy_whole(run / figure, Path(__file__).with_name(figure))
    results = (read_json(path) for path in sorted((RESULTS / "labs").glob("cifar10_*.json")))
    trainings = (result for result in results if "validate" in result)  # the file of `speed` is none
    rows = [{name: result[name] for name in SUMMED_UP} for result in trainings if not result["validate"]]
    if rows:
        write_rows(RESULTS / "labs" / "cifar10_means.csv", means(rows, ("recipe", "seed")))


def ladder(training: Pictures, device: torch.device) -> None:
    """The fast recipe in small, with every trick, without each, and without all: a row of RESULTS for each training.

    Expected: whitening, the biases' rate and small batches give most, for they make the beginning fast; shifts cost in
    five epochs what they give in sixteen; the others stay within the chance of 5,000 pictures.
    """
    training, testing = keep_back(training)
    table = RESULTS / "labs" / "cifar10_ladder.csv"
    rows = read_rows(table)

    def one(without: str) -> Row:
        settings = {**DEFAULTS, "recipe": "ladder", "without": without, "validate": True}
        out = ROOT / "runs" / "labs" / "cifar10_ladder" / without.replace(" ", "_")
        with run_in(out, SCRIPT, settings, DEFAULTS, device) as run:
            network = train(run, training, testing, device)
        right = {name: share_right(logits, testing[1]) for name, logits in score(network, testing[0]).items()}
        whole = float(rows[0]["copies"]) if rows else right["copies"]
        seconds = round(sum(row["seconds"] for row in run.history))
        return {**right, "gained_points": round(100 * (whole - right["copies"]), 2), "seconds": seconds}

    go_on(table, rows, (({"without": without}, partial(one, without)) for without in ("nothing", *TRICKS, "all")))


def layers() -> None:
    """Prints what the tutorial finds by sending one empty picture through: every layer's shape, and the size."""
    for network in (CifarCNN(), FastCNN()):
        for name, kind, shape in output_shapes(network):
            print(f"{name:16} {kind:12} {shape}")
        weights = sum(weight.numel() for weight in network.parameters())
        print(f"{type(network).__name__}: {weights:,} weights, {megabytes(network):.2f} MB\n")


def parse_arguments() -> argparse.Namespace:
    parser = lab_parser("cifar10", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    names = ("train", "evaluate", "predict", "layers", "keep", "ladder", "speed")
    training, evaluating, predicting, _, keeping, climbing, timing = (commands.add_parser(name) for name in names)
    add = training.add_argument
    add("--recipe", choices=("seed", "fast"), help="(default: fast)")
    add("--seed", type=between(0, 2**32 - 1), help="first weights, order, variation (default: 0)")
    add("--validate", action="store_true", default=None, help="test on training pictures kept back")
    add("--quick", action="store_true", default=None, help="120 pictures, to see that it runs")
    add_run_arguments(training, "cifar10")
    training.set_defaults(without=None, pictures=None)
    ours = "a run's folder or cifar10.pth (default: the repository's)"
    evaluating.add_argument("weights", type=Path, nargs="?", metavar="RUN_OR_WEIGHTS", help=ours)
    predicting.add_argument("--model", type=Path, metavar="RUN_OR_WEIGHTS", help=ours)
    predicting.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE")
    keeping.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    for one in (evaluating, predicting, climbing):
        one.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    for one in (training, evaluating, climbing, timing):
        one.add_argument("--data", type=Path, default="data/cifar10", metavar="DIR", help="(default: %(default)s)")
    return parser.parse_args()


def begin(args: argparse.Namespace, device: torch.device) -> tuple[Run, Pictures, Pictures, list[str]]:
    """The run that is asked for, and its pictures; nothing is written. Raises ValueError, OSError or Finished."""
    run = Run(SCRIPT, args, DEFAULTS, device)
    count = QUICK_PICTURES if run.settings["quick"] else None
    *training, classes = load_cifar(args.data, "train", count)
    if run.settings["validate"]:
        return run, *keep_back(training), classes
    *testing, _ = load_cifar(args.data, "test", count)
    return run, training, testing, classes


def evaluate_weights(args: argparse.Namespace, device: torch.device) -> None:
    """Draws into the run's folder, or one of its own where a file of weights is given, or nothing."""
    network, given = load("cifar", args.weights, device), args.weights or NETWORKS["cifar"].path
    *testing, classes = load_cifar(args.data, "test")
    folder = given if given.is_dir() else Path("runs", f"{given.stem}-evaluated")
    folder.mkdir(parents=True, exist_ok=True)
    judge(folder, network, testing, classes, "test")


def predict(args: argparse.Namespace, device: torch.device) -> None:
    """Prints a line for each picture. One that cannot be read is an error, the command's status, but not its end."""
    network, failed = load("cifar", args.model, device), False
    for path in args.pictures:
        try:
            probabilities = answer_of(network, score(network, open_small(path)[None])).softmax(dim=1)[0]
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
        else:
            print(f"{path}: {CLASSES[probabilities.argmax()]} {probabilities.max():.1%}", flush=True)
    sys.exit(int(failed))


@command
def main() -> None:
    args = parse_arguments()
    with told():
        if args.command == "keep":
            return keep(args.run)
        if args.command == "layers":
            return layers()
        if args.command == "speed":
            return speed(*load_cifar(args.data, "train", TIMED_PICTURES)[:2])
        device = pick_device(args.device)
        if args.command == "evaluate":
            return evaluate_weights(args, device)
        if args.command == "predict":
            return predict(args, device)
        if args.command == "ladder":
            *training, _ = load_cifar(args.data, "train")
            return ladder(training, device)
        run, training, testing, classes = begin(args, device)
    with run:
        print(f"Training on {device}, writing to {run.out}", flush=True)
        plot_variation(run.out / "pictures.png", first_epochs(run.settings, training[0][:10]))
        finish(run, train(run, training, testing, device), training, testing, classes)


if __name__ == "__main__":
    main()
