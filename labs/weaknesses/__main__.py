"""What goes wrong with networks that read pictures well (the CIFAR tutorial, its last part), measured.

    python -m labs.weaknesses digit           one digit that a small step turns into a sure wrong answer; a picture
    python -m labs.weaknesses attack          small steps against CIFAR-10's network, and cats and dogs'
    python -m labs.weaknesses pictures        cats and dogs greyed, or in other colours
    python -m labs.weaknesses environment     cars put before other backgrounds
    python -m labs.weaknesses imbalance       short trainings on CIFAR-10, one with rare classes

Each prints its table, and keeps it as report/results/labs/weaknesses_NAME.csv, if neither --quick nor other pictures
or weights are given.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from carvana import find_pairs, split_by_car
from infer_unet import predict_mask
from labs.cats_dogs.pictures import find_pictures, load_pictures
from labs.cifar10.pictures import Pictures, load_cifar
from labs.cifar10.recipes import DEFAULTS, QUICK_PICTURES, keep_back, score, train
from labs.commands import drawing, lab_parser
from labs.weaknesses.backgrounds import BACKGROUNDS, cut_out
from labs.weights import load
from pictures import open_photograph, read_mask
from report.harness import run_in
from report.lenet_experiments import attacked
from report.tables import RESULTS, going_on
from train_lenet import load_mnist
from train_unet import DEFAULTS as UNET
from train_unet import dice_coefficient
from training import ROOT, Row, command, pick_device, told, write_rows

STEPS = (0, 1, 2, 4, 8)  # largest change of a colour, of 255
DIGIT_STEP = 0.1  # of the way from black to white
FIGURE = Path(__file__).with_name("attack.png")
OF_OTHERS = ("cifar", "cifar_data", "data", "photographs")  # what is given here is not what the texts are about
RARE = range(1, 10, 2)  # the classes of which a tenth is left
Scores = Callable[[Tensor], Tensor]  # pictures [B, 3, H, W] in [0, 1] -> scores [B, classes]


def pets(data: Path, quick: bool, device: torch.device) -> tuple[Scores, Tensor, Tensor]:
    """The shipped network, and the pictures in `data` as bytes, with their labels."""
    network = load("cats_dogs", device=device)
    pictures, labels, _ = load_pictures(find_pictures(data)[:: 25 if quick else 1], network.size)
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
    network = load("cifar", args.cifar, device)
    pictures, labels, _ = load_cifar(args.cifar_data, "test", QUICK_PICTURES if args.quick else None)
    networks = {"cifar10": (network, pictures, labels)}
    networks["cats_dogs"] = pets(args.data, args.quick, device)
    rows = []
    for step in STEPS:
        row: Row = {"step": step}
        for name, (scores, pictures, labels) in networks.items():
            row[name] = share_right(scores, pictures, labels, device, partial(attacked, size=step / 255))
        rows.append(row)
    return rows


def digit(args: argparse.Namespace, device: torch.device) -> list[Row]:
    """The test digit of which the network is surest, rightly before a step of DIGIT_STEP and wrongly after it."""
    network, (pictures, labels) = load("lenet", device=device), load_mnist(ROOT / "data", train=False)
    changed = [
        attacked(network, part.to(device), answers.to(device), DIGIT_STEP).cpu()
        for part, answers in zip(pictures.split(1000), labels.split(1000), strict=True)
    ]
    before, after = (
        torch.cat([network(part.to(device)).softmax(dim=1).detach().cpu() for part in parts])
        for parts in (pictures.split(1000), changed)
    )
    right, wrong = before.argmax(dim=1) == labels, after.argmax(dim=1) != labels
    sureness = torch.minimum(before.max(dim=1).values, after.max(dim=1).values)
    index = torch.where(right & wrong, sureness, 0).argmax()
    row: Row = {"step": DIGIT_STEP, "digit": index.item()}
    for name, probabilities in (("before", before[index]), ("after", after[index])):
        row |= {name: probabilities.argmax().item(), f"sure_{name}": probabilities.max().item()}
    row["right_before"], row["right_after"] = right.double().mean().item(), 1 - wrong.double().mean().item()
    if not args.quick:
        plot_attack(FIGURE, pictures[index, 0], torch.cat(changed)[index, 0], row)
    return [row]


def plot_attack(path: Path, picture: Tensor, changed: Tensor, row: Row) -> None:
    """The digit, what is added to it, and the sum, `[28, 28]` each, with what the network says of them."""
    with drawing(path, 8, 3) as figure:
        panels = {
            f"{row['before']}, {row['sure_before']:.1%} sure": (picture, {"cmap": "gray", "vmin": 0, "vmax": 1}),
            f"+ at most {row['step']:g} of black to white": (
                changed - picture,
                {"cmap": "coolwarm", "clim": (-0.2, 0.2)},
            ),
            f"= {row['after']}, {row['sure_after']:.1%} sure": (changed, {"cmap": "gray", "vmin": 0, "vmax": 1}),
        }
        for axes, (title, (shown, style)) in zip(figure.subplots(1, 3), panels.items(), strict=True):
            axes.imshow(shown.numpy(), **style)
            axes.set_title(title)
            axes.axis("off")


def environment(args: argparse.Namespace, device: torch.device) -> list[Row]:
    """Dice of the shipped U-Net: the drawn car, and two photographs of each car that no training has seen."""
    network = load("unet", device=device)
    *_, reported = split_by_car(find_pairs(args.photographs, check=False), UNET["val_cars"], UNET["seed"])
    reported = reported[:: 112 if args.quick else 8]  # a car has sixteen views
    cars = {"drawn": [(ROOT / "car.jpg", RESULTS / "unet" / "car_mask.png")], "photographs": reported}
    rows: list[Row] = [{"background": name} for name in BACKGROUNDS]
    for name, pairs in cars.items():
        for row in tqdm(rows, name, leave=False, disable=None):
            dice = []
            for photo, mask, *_ in pairs:
                picture, truth = np.asarray(open_photograph(photo)), read_mask(mask)
                changed = Image.fromarray(cut_out(picture, truth, row["background"]))
                found = torch.from_numpy(predict_mask(network, changed))
                dice.append(dice_coefficient(found.float(), torch.from_numpy(truth).float()).item())
            row[name] = mean(dice)
    return rows


def middle(pictures: Tensor) -> Tensor:
    """1 in a disc in the middle that covers half of the picture, 0 around it: [H, W]."""
    rows, columns = (torch.linspace(-1, 1, size, device=pictures.device) for size in pictures.shape[2:])
    return (rows[:, None] ** 2 + columns**2 < 2 / torch.pi).float()


def without_colours(pictures: Tensor) -> Tensor:
    from torchvision.transforms.functional import rgb_to_grayscale  # takes as long to import as PyTorch itself

    return rgb_to_grayscale(pictures, num_output_channels=3)


def in_opposite_colours(pictures: Tensor) -> Tensor:
    from torchvision.transforms.functional import adjust_hue  # late, see above

    return adjust_hue(pictures, 0.5)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda x: x,
    "grey around the middle": lambda x: x.lerp(torch.full_like(x, 0.5), 1 - middle(x)),
    "grey in the middle": lambda x: x.lerp(torch.full_like(x, 0.5), middle(x)),
    "without colours": without_colours,
    "in the opposite colours": in_opposite_colours,
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
    *training, classes = load_cifar(args.cifar_data, "train", QUICK_PICTURES if args.quick else None)
    training, (pictures, labels) = keep_back(training)
    rows: list[Row] = [{"class": name, "rare": label in RARE} for label, name in enumerate(classes)]
    trainings = {"balanced": training, "thinned": thinned(training)}
    for name, own in trainings.items():
        settings: Row = {**DEFAULTS, "recipe": "ladder", "validate": True, "quick": args.quick}
        out = ROOT / "runs" / "labs" / f"weaknesses-{name}{'-quick' * args.quick}"
        with run_in(out, "labs/weaknesses.py", settings, settings, device) as run:
            network = train(run, own, (pictures, labels), device)
        found = score(network, pictures)["plain"].argmax(dim=1)
        for label, row in enumerate(rows):
            own = found[labels == label]
            row[name] = (own == label).sum().item() / max(1, len(own))
    for rare in (False, True):
        group = [row for row in rows[:10] if row["rare"] == rare]
        rows.append({"class": "mean", "rare": rare, **{name: mean(row[name] for row in group) for name in trainings}})
    return rows


@command
def main() -> None:
    tables = {
        "digit": digit,
        "environment": environment,
        "attack": attack,
        "pictures": change_pictures,
        "imbalance": imbalance,
    }
    parser = lab_parser("weaknesses", __doc__)
    add = parser.add_argument
    add("what", choices=list(tables))
    add("--cifar", type=Path, metavar="RUN", help="of labs.cifar10 (default: the repository's weights)")
    add("--cifar-data", type=Path, default="data/cifar10", metavar="DIR", help="(default: %(default)s)")
    add("--data", type=Path, default="data/cats_dogs/val", metavar="DIR", help="(default: %(default)s)")
    add("--photographs", type=Path, default="data/carvana", metavar="DIR", help="and masks (default: %(default)s)")
    add("--quick", action="store_true", help="few pictures, to see that it runs")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    args = parser.parse_args()
    with told(), going_on():
        rows = tables[args.what](args, pick_device(args.device))
        ours = all(getattr(args, name) == parser.get_default(name) for name in OF_OTHERS)
        if ours and not args.quick:
            write_rows(RESULTS / "labs" / f"weaknesses_{args.what}.csv", rows)
    for row in rows:
        shown = (f"{key} {value:.4f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
        print(", ".join(shown))


if __name__ == "__main__":
    main()
