"""Varying pictures one by one, or a whole batch at once: what does it cost? (the CIFAR tutorial, "Data Augmentation")

    python -m labs.augmentation           writes report/results/labs/augmentation.json
    python -m labs.augmentation --quick   measures once, and writes nothing

prints a line for each way to vary a picture, with the milliseconds that one picture takes:

    224x224    flip      Pillow ...   tensor ...   batch ...   Pillow/batch ...

torchvision's transforms take Pillow's pictures or tensors one by one, as a Dataset hands them over; what varies a whole
batch stands below, a few lines each. All ways take turns, on one thread and on pictures cut out of `car.jpg`.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from labs.cifar10.pictures import mirror
from labs.commands import lab_parser
from pictures import open_photograph
from report.tables import RESULTS, machine, write_json
from train_lenet import random_affine
from training import ROOT, command, told

BATCH, SIZES, ROUNDS = 128, (32, 224), 7

Batch = Callable[[Tensor, torch.Generator], Tensor]


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each of `images` [B, C, H, W] or not."""
    return mirror(images, torch.rand(len(images), generator=generator) < 0.5)


def crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Cuts each of `images` [B, C, H, W] out of a frame of zeros, an eighth as wide, at a place of its own."""
    count, _, height, width = images.shape
    border = height // 8
    windows = F.pad(images, (border,) * 4).unfold(2, height, 1).unfold(3, width, 1)  # [B, C, 2b + 1, 2b + 1, H, W]
    down, right = torch.randint(2 * border + 1, (2, count), generator=generator)
    return windows[torch.arange(count), :, down, right]


def rotate(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turns each of `images` [B, C, H, W] by up to 30 degrees."""
    angle = torch.deg2rad(60 * torch.rand(len(images), generator=generator) - 30)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(len(images))
    turns = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(turns, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def colour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Changes saturation, contrast and brightness of each of `images` [B, 3, H, W] in [0, 1] by up to two fifths."""
    saturation, contrast, light = 0.6 + 0.8 * torch.rand(3, len(images), 1, 1, 1, generator=generator)
    images = images.mean(dim=1, keepdim=True).lerp(images, saturation)
    images = images.mean(dim=(1, 2, 3), keepdim=True).lerp(images, contrast)
    return (images * light).clamp(0, 1)


WAYS: dict[str, Batch] = {"flip": flip, "crop": crop, "rotation": rotate, "affine": random_affine, "colour": colour}


def torchvisions(size: int) -> dict[str, Callable]:
    """The transforms that do to one picture of `size` pixels what WAYS do to a batch."""
    from torchvision import transforms  # takes as long to import as PyTorch itself

    bilinear = {"interpolation": transforms.InterpolationMode.BILINEAR}
    return {
        "flip": transforms.RandomHorizontalFlip(),
        "crop": transforms.RandomCrop(size, padding=size // 8),
        "rotation": transforms.RandomRotation(30, **bilinear),
        "affine": transforms.RandomAffine(11.5, (0.06, 0.06), (0.88, 1.12), 11.3, **bilinear),
        "colour": transforms.ColorJitter(0.4, 0.4, 0.4),
    }


def pieces(size: int) -> list[Image.Image]:
    """`BATCH` pictures of `size` by `size` pixels, cut out of the drawn car."""
    car = open_photograph(ROOT / "car.jpg")
    steps = torch.linspace(0, 1, BATCH)
    return [
        car.crop((left, 200, left + 448, 648)).resize((size, size))
        for left in (steps * (car.width - 448)).int().tolist()
    ]


def measure(size: int, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds a picture, the median of the rounds, for each way to vary it."""
    from torchvision.transforms.functional import to_tensor  # late, see above

    pictures = pieces(size)
    single = [to_tensor(picture) for picture in pictures]
    whole = torch.stack(single)
    generator = torch.Generator().manual_seed(0)
    table = {}
    for name, transform in torchvisions(size).items():
        ways: dict[str, Callable[[], object]] = {
            "pillow": lambda transform=transform: [to_tensor(transform(picture)) for picture in pictures],
            "tensor": lambda transform=transform: torch.stack([transform(picture) for picture in single]),
            "batch": lambda ours=WAYS[name]: ours(whole, generator),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, work in ways.items():
                start = time.perf_counter()
                work()
                seconds[way].append(time.perf_counter() - start)
        table[name] = {way: 1000 * median(values) / BATCH for way, values in seconds.items()}
        table[name]["ratio"] = median(a / b for a, b in zip(seconds["pillow"], seconds["batch"], strict=True))
        shown = "   ".join(f"{way.capitalize()} {table[name][way]:.3f}" for way in ways)
        print(f"{f'{size}x{size}':10} {name:9} {shown}   Pillow/batch {table[name]['ratio']:.1f}", flush=True)
    return table


@command
def main() -> None:
    parser = lab_parser("augmentation", __doc__)
    parser.add_argument("--quick", action="store_true", help="once, and writes nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with told():
        results = {str(size): measure(size, 1 if args.quick else ROUNDS) for size in SIZES}
        if not args.quick:
            write_json(RESULTS / "labs" / "augmentation.json", {**results, "machine": machine()})


if __name__ == "__main__":
    main()
