"""What goes wrong with networks that read pictures well (seed 001, its last part), measured.

    python -m labs.weaknesses attack --cifar runs/cifar10    small steps against CIFAR-10's network, and cats and dogs'
    python -m labs.weaknesses pictures                       cats and dogs greyed, or in other colours
    python -m labs.weaknesses imbalance                      short trainings on CIFAR-10, one with rare classes

Each prints its table, and keeps it as report/results/labs/weaknesses_NAME.csv.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor
from torchvision.transforms.functional import adjust_hue, rgb_to_grayscale
from tqdm import tqdm

from labs import cats_dogs, cifar10, cifar_networks, cifar_recipes
from labs.cats_dogs_pictures import find_pictures, load_pictures
from labs.cats_dogs_scores import load_network
from labs.cifar_pictures import Pictures, load_cifar
from report.lenet_experiments import attacked
from training import Row, Run, pick_device, write_rows

STEPS = (0, 1, 2, 4, 8)  # largest change of a colour, of 255
RARE = range(1, 10, 2)  # the classes of which a tenth is left
Scores = Callable[[Tensor], Tensor]  # pictures [B, 3, H, W] in [0, 1] -> scores [B, classes]


def pets(data: Path, quick: bool, device: torch.device) -> tuple[Scores, Tensor, Tensor]:
    """The shipped network, and the pictures in `data` as bytes, with their labels."""
    network, size = load_network(cats_dogs.WEIGHTS, device)
    pictures, labels, _ = load_pictures(find_pictures(data)[:: 25 if quick else 1], size)
    return lambda x: network(2 * x - 1), pictures, labels


def share_right(scores: Scores, pictures: Tensor, labels: Tensor, device: torch.device, change: Callable) -> float:
    """Of pictures (bytes) after `change(scores, pictures in [0, 1], labels)`, the share that is told right."""
    right = 0
    batches = list(zip(pictures.split(100), labels.split(100), strict=True))
    for batch, answers in tqdm(batches, "looking", leave=False, disable=None):
        answers = answers.to(device)
        changed = change(scores, batch.to(device) / 255, answers)
        with torch.inference_mode():
            right += (scores(changed).argmax(dim=1) == answers).sum().item()
    return right / len(labels)


def attack(args: argparse.Namespace, device: torch.device) -> list[Row]:
    """The fast gradient sign method: every colour of every pixel moved by the same small step, the worse way."""
    if args.cifar is None:
        raise ValueError("the weights for CIFAR-10 are too large for the repository: give a run's folder as --cifar")
    pictures, labels, _ = load_cifar(args.cifar_data, "test", cifar10.QUICK_PICTURES if args.quick else None)
    networks = {"cifar10": (cifar_networks.load_network(args.cifar / "cifar10.pth").to(device), pictures, labels)}
    networks["cats_dogs"] = pets(args.data, args.quick, device)
    rows = []
    for step in STEPS:
        row: Row = {"step": step}
        for name, (scores, pictures, labels) in networks.items():
            row[name] = share_right(scores, pictures, labels, device, partial(attacked, step=step / 255))
        rows.append(row)
    return rows


def middle(pictures: Tensor) -> Tensor:
    """1 in a disc in the middle that covers half of the picture, 0 around it: [H, W]."""
    rows, columns = (torch.linspace(-1, 1, size, device=pictures.device) for size in pictures.shape[2:])
    return (rows[:, None] ** 2 + columns**2 < 2 / torch.pi).float()


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda x: x,
    "grey around the middle": lambda x: x.lerp(torch.full_like(x, 0.5), 1 - middle(x)),
    "grey in the middle": lambda x: x.lerp(torch.full_like(x, 0.5), middle(x)),
    "without colours": lambda x: rgb_to_grayscale(x, num_output_channels=3),
    "in the opposite colours": lambda x: adjust_hue(x, 0.5),
}


def of_picture(change: Callable[[Tensor], Tensor]) -> Callable[[Scores, Tensor, Tensor], Tensor]:
    """`change` as `share_right` takes it, though it needs neither network nor labels."""
    return lambda scores, x, labels: change(x)


def change_pictures(args: argparse.Namespace, device: torch.device) -> list[Row]:
    """Nobody has marked where the animals are; more often than not it is the middle, with their surroundings around."""
    scores, pictures, labels = pets(args.data, args.quick, device)
    rows = []
    for name, change in CHANGES.items():
        rows.append({"change": name, "accuracy": share_right(scores, pictures, labels, device, of_picture(change))})
    return rows


def thinned(training: Pictures) -> Pictures:
    """`training` with every tenth picture only of the classes in RARE."""
    pictures, labels = training
    kept = torch.ones(len(labels), dtype=torch.bool)
    for label in RARE:
        own = torch.nonzero(labels == label)[:, 0]
        kept[own] = False
        kept[own[::10]] = True
    return pictures[kept], labels[kept]


def imbalance(args: argparse.Namespace, device: torch.device) -> list[Row]:
    """How many of each class are told right, of 5,000 kept back, after five epochs on all others and on fewer."""
    *training, classes = load_cifar(args.cifar_data, "train", cifar10.QUICK_PICTURES if args.quick else None)
    training, (pictures, labels) = cifar10.keep_back(training)
    rows: list[Row] = [{"class": name, "rare": label in RARE} for label, name in enumerate(classes)]
    trainings = {"balanced": training, "thinned": thinned(training)}
    for name, own in trainings.items():
        settings: Row = {**cifar10.DEFAULTS, "recipe": "ladder", "validate": True, "quick": args.quick}
        out = cats_dogs.ROOT / "runs" / "labs" / f"weaknesses-{name}{'-quick' * args.quick}"
        run_arguments = argparse.Namespace(out=out, resume=True, tensorboard=False, **settings)
        with Run("labs/weaknesses.py", run_arguments, settings, device) as run:
            try:
                network = cifar10.train(run, own, (pictures, labels), device)
            except KeyboardInterrupt:
                print("\nStopped. The same command goes on.", file=sys.stderr)
                sys.exit(130)
        found = cifar_recipes.score(network, pictures)["plain"].argmax(dim=1)
        for label, row in enumerate(rows):
            own = found[labels == label]
            row[name] = (own == label).sum().item() / max(1, len(own))
    for rare in (False, True):
        group = [row for row in rows[:10] if row["rare"] == rare]
        rows.append({"class": "mean", "rare": rare, **{name: mean(row[name] for row in group) for name in trainings}})
    return rows


def main() -> None:
    tables = {"attack": attack, "pictures": change_pictures, "imbalance": imbalance}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(tables))
    parser.add_argument("--cifar", type=Path, metavar="RUN", help="the folder of a run of labs.cifar10")
    parser.add_argument(
        "--cifar-data", type=Path, default=Path("data/cifar10"), metavar="DIR", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data/cats_dogs/val"), metavar="DIR", help="(default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="few pictures, to see that it runs")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    args = parser.parse_args()
    try:
        rows = tables[args.what](args, pick_device(args.device))
        if not args.quick:
            cifar10.RESULTS.mkdir(parents=True, exist_ok=True)
            write_rows(cifar10.RESULTS / f"weaknesses_{args.what}.csv", rows)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    for row in rows:
        print(
            ", ".join(
                f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            )
        )


if __name__ == "__main__":
    main()
