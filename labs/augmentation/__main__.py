"""Varying pictures, one by one or a whole batch at once (the CIFAR tutorial, "Data Augmentation").

    python -m labs.augmentation           draws ways.jpg beside this file, writes report/results/labs/augmentation.csv
    python -m labs.augmentation --quick   measures once, and writes nothing

prints a line for each way of the tutorial's table, with the milliseconds that one picture takes:

    200x200  rotation         torchvision ...   ours, 32 ...   kornia, 32 ...   ours, 128 ...   kornia, 128 ...

torchvision's transforms take Pillow's pictures one by one, as a Dataset hands them over; Kornia's take a whole batch,
as do the functions below, a few lines each. All take turns, on one thread and on pictures cut out of `car.jpg`.
Without Kornia (pip install kornia) its columns are missing, and nothing is written.
"""

import importlib.util
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from labs.commands import drawing, lab_parser
from pictures import open_photograph
from report.tables import RESULTS, machine, write_json
from train_lenet import random_affine
from training import ROOT, Row, command, told, write_rows

SHEET = Path(__file__).with_name("ways.jpg")
BATCHES, SIZES, ROUNDS = (32, 128), (32, 200), 15

# What varies a batch: `images` [B, 3, H, W] in [0, 1], and a generator on the CPU from which each picture gets random
# numbers of its own. Flips and grey leave every second picture as it is, all others change each.


def uniform(images: Tensor, generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Random numbers `[B, *shape]` for the B `images`, where these are."""
    return torch.empty(len(images), *shape).uniform_(low, high, generator=generator).to(images.device)


def half(images: Tensor, generator: torch.Generator) -> Tensor:
    """Every second picture, more or less: `[B, 1, 1, 1]`, True or False."""
    return uniform(images, generator, 0, 1, 1, 1, 1) < 0.5


def warp(images: Tensor, *numbers: Tensor | float) -> Tensor:
    """The picture at (ax + by + c, dx + ey + f) for every (x, y), -1 to 1 from edge to edge; 0 beyond the edges.

    `numbers` are a to f, `[B]` or the same for all.
    """
    rows = [torch.as_tensor(number, device=images.device).expand(len(images)) for number in numbers]
    grid = F.affine_grid(torch.stack(rows, dim=1).view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def boxes(images: Tensor, generator: torch.Generator, least: float, most: float) -> tuple[Tensor, ...]:
    """A box in each picture, `least` to `most` of its area: centre x and y, half its width and its height, each [B]."""
    area = uniform(images, generator, least, most)
    ratio = uniform(images, generator, math.log(3 / 4), math.log(4 / 3)).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = uniform(images, generator, -1, 1, 2).unbind(dim=1)
    return x * (1 - width), y * (1 - height), width, height


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.where(half(images, generator), images.flip(3), images)


def flip_upside_down(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.where(half(images, generator), images.flip(2), images)


def rotate(images: Tensor, generator: torch.Generator) -> Tensor:
    """By up to 30 degrees."""
    angle = torch.deg2rad(uniform(images, generator, -30, 30))
    aspect = images.shape[2] / images.shape[3]  # a turn in pixels; x and y go from -1 to 1 in any picture
    return warp(images, angle.cos(), -aspect * angle.sin(), 0, angle.sin() / aspect, angle.cos(), 0)


def scale(images: Tensor, generator: torch.Generator) -> Tensor:
    """To between three quarters and four thirds of the size, both sides alike."""
    factor = uniform(images, generator, math.log(3 / 4), math.log(4 / 3)).exp()
    return warp(images, factor, 0, 0, 0, factor, 0)


def shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """By up to a quarter of the picture, in any direction."""
    right, down = uniform(images, generator, -0.5, 0.5, 2).unbind(dim=1)
    return warp(images, 1, 0, right, 0, 1, down)


def resized_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """A part, 8 to 100 hundredths of the picture, made as large as the whole."""
    x, y, width, height = boxes(images, generator, 0.08, 1)
    return warp(images, width, 0, x, 0, height, y)


def crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """A part as large as the picture, out of the picture in a frame of zeros that is an eighth as wide."""
    height, width = images.shape[2:]
    border = width // 8
    framed = F.pad(images, (border,) * 4)
    places = torch.randint(2 * border + 1, (len(images), 2), generator=generator).tolist()
    parts = zip(framed, places, strict=True)
    return torch.stack([picture[:, top : top + height, left : left + width] for picture, (top, left) in parts])


def centre_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """The middle three quarters of either side: smaller pictures, and nothing random."""
    height, width = images.shape[2:]
    return images[..., height // 8 : height - height // 8, width // 8 : width - width // 8].clone()


def perspective(images: Tensor, generator: torch.Generator) -> Tensor:
    """As seen from elsewhere: each corner moves inwards by up to a quarter of the picture, both ways."""
    corners = images.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]]).expand(len(images), 4, 2)
    moved = corners * uniform(images, generator, 0.5, 1, 4, 2)
    # Eight numbers take each moved (x, y) to its corner (u, v): u = (ax + by + c) / (gx + hy + 1), and v like it.
    (x, y), (u, v) = moved.unbind(dim=2), corners.unbind(dim=2)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    for_u = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=2)
    for_v = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=2)
    numbers = torch.linalg.solve(torch.cat([for_u, for_v], dim=1), torch.cat([u, v], dim=1))  # a to h, [B, 8]
    matrices = F.pad(numbers, (0, 1), value=1).view(-1, 3, 3)

    identity = torch.eye(2, 3, device=images.device)[None]
    places = F.affine_grid(identity, [1, *images.shape[1:]], align_corners=False).view(-1, 2)  # [H * W, 2]
    mapped = F.pad(places, (0, 1), value=1) @ matrices.transpose(1, 2)  # [B, H * W, 3]
    grid = (mapped[..., :2] / mapped[..., 2:]).view(-1, *images.shape[2:], 2)
    return F.grid_sample(images, grid, align_corners=False)


def gaussian_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return (images + 0.1 * noise).clamp(0, 1)


def salt_and_pepper(images: Tensor, generator: torch.Generator) -> Tensor:
    """Every twentieth pixel white or black."""
    draw = uniform(images, generator, 0, 40, 1, *images.shape[2:])
    return images.masked_fill(draw < 1, 0).masked_fill(draw > 39, 1)


def colour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Saturation, contrast and brightness by up to two fifths."""
    saturation, contrast, light = uniform(images, generator, 0.6, 1.4, 3, 1, 1, 1).unbind(dim=1)
    images = images.mean(dim=1, keepdim=True).lerp(images, saturation)
    images = images.mean(dim=(1, 2, 3), keepdim=True).lerp(images, contrast)
    return (images * light).clamp(0, 1)


def grey(images: Tensor, generator: torch.Generator) -> Tensor:
    """Every second picture without its colours."""
    red, green, blue = images.unbind(dim=1)
    shades = 0.299 * red + 0.587 * green + 0.114 * blue  # as bright as they are to an eye
    return torch.where(half(images, generator), shades[:, None], images)


def erase(images: Tensor, generator: torch.Generator) -> Tensor:
    """A black box, 2 to 33 hundredths of the picture."""
    x, y, width, height = (number.view(-1, 1) for number in boxes(images, generator, 0.02, 0.33))
    rows, columns = (torch.linspace(-1, 1, size, device=images.device) for size in images.shape[2:])
    inside = ((rows - y).abs() <= height)[:, :, None] & ((columns - x).abs() <= width)[:, None, :]  # [B, H, W]
    return images.masked_fill(inside[:, None], 0)


WAYS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "horizontal flip": flip,
    "vertical flip": flip_upside_down,
    "rotation": rotate,
    "scale": scale,
    "shift": shift,
    "affine": random_affine,
    "perspective": perspective,
    "crop": crop,
    "centre crop": centre_crop,
    "resized crop": resized_crop,
    "erasing": erase,
    "Gaussian noise": gaussian_noise,
    "salt and pepper": salt_and_pepper,
    "colour": colour,
    "grey": grey,
}


def draw_sheet(path: Path) -> None:
    """Writes the drawn car and what each way makes of it."""
    car = picture_tensor(open_photograph(ROOT / "car.jpg").resize((240, 160)))
    several = car.expand(8, *car.shape)  # of which some are flipped, and some are grey
    panels = {"car.jpg": car}
    for name, vary in WAYS.items():
        varied = vary(several, torch.Generator().manual_seed(11))
        panels[name] = next(
            picture for picture in varied if picture.shape != car.shape or not torch.equal(picture, car)
        )
    with drawing(path, 10, 7.8, pil_kwargs={"quality": 85}) as figure:
        for axes, (title, picture) in zip(figure.subplots(4, 4).flat, panels.items(), strict=True):
            axes.imshow(picture.movedim(0, 2).numpy())
            axes.set_title(title, fontsize=10)
            axes.axis("off")


# What it costs


def picture_tensor(picture: Image.Image) -> Tensor:
    from torchvision.transforms.functional import to_tensor  # takes as long to import as PyTorch itself

    return to_tensor(picture)


def torchvisions(size: int) -> dict[str, Callable[[Image.Image], Tensor]]:
    """The tutorial's eleven, from a Pillow picture of `size` pixels to a tensor, as a Dataset does them."""
    from torchvision import transforms  # late, see above

    bilinear = {"interpolation": transforms.InterpolationMode.BILINEAR}
    ways = {
        "horizontal flip": transforms.RandomHorizontalFlip(),
        "vertical flip": transforms.RandomVerticalFlip(),
        "rotation": transforms.RandomRotation(30, **bilinear),
        "affine": transforms.RandomAffine(11.5, (0.06, 0.06), (0.88, 1.12), 11.3, **bilinear),
        "perspective": transforms.RandomPerspective(p=1),
        "crop": transforms.RandomCrop(size, padding=size // 8),
        "centre crop": transforms.CenterCrop(size - 2 * (size // 8)),
        "resized crop": transforms.RandomResizedCrop(size),
        "colour": transforms.ColorJitter(0.4, 0.4, 0.4),
        "grey": transforms.RandomGrayscale(p=0.5),
    }
    composed = {name: transforms.Compose([way, transforms.ToTensor()]) for name, way in ways.items()}
    erasing = transforms.Compose([transforms.ToTensor(), transforms.RandomErasing(p=1)])  # it takes tensors only
    return composed | {"erasing": erasing}


def kornias(size: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """The same of Kornia, for a batch; none where it is not installed."""
    if importlib.util.find_spec("kornia") is None:
        return {}
    from kornia import augmentation  # takes seconds, and is no requirement

    inner = size - 2 * (size // 8)
    return {
        "horizontal flip": augmentation.RandomHorizontalFlip(p=0.5),
        "vertical flip": augmentation.RandomVerticalFlip(p=0.5),
        "rotation": augmentation.RandomRotation(30.0, p=1),
        "affine": augmentation.RandomAffine(11.5, (0.06, 0.06), (0.88, 1.12), 11.3, p=1),
        "perspective": augmentation.RandomPerspective(0.5, p=1),
        "crop": augmentation.RandomCrop((size, size), padding=size // 8, p=1),
        "centre crop": augmentation.CenterCrop((inner, inner), p=1),
        "resized crop": augmentation.RandomResizedCrop((size, size), p=1),
        "erasing": augmentation.RandomErasing(p=1),
        "colour": augmentation.ColorJiggle(0.4, 0.4, 0.4, p=1),
        "grey": augmentation.RandomGrayscale(p=0.5),
    }


def pieces(size: int, count: int) -> list[Image.Image]:
    """`count` pictures of `size` by `size` pixels, cut out of the drawn car."""
    car = open_photograph(ROOT / "car.jpg")
    lefts = torch.linspace(0, car.width - 448, count).int().tolist()
    return [car.crop((left, 200, left + 448, 648)).resize((size, size)) for left in lefts]


def one_by_one(vary: Callable[[Image.Image], Tensor], pictures: list[Image.Image]) -> list[Tensor]:
    return [vary(picture) for picture in pictures]


def in_turn(work: dict[str, tuple[Callable, list[Image.Image] | Tensor]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds a picture that each function needs for its pictures, in each of the rounds."""
    # Of this process alone, since others may share its core; but on Windows that clock ticks only 64 times a second.
    clock = time.perf_counter if sys.platform == "win32" else time.process_time
    spent: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, (vary, pictures) in work.items():
            start = clock()
            vary(pictures)
            spent[name].append(1000 * (clock() - start) / len(pictures))
    return spent


def measure(size: int, rounds: int) -> list[Row]:
    """A row for each of the tutorial's ways: the medians of the rounds, and of the ratios within a round."""
    few, many = BATCHES
    pictures = pieces(size, many)
    batch = torch.stack([picture_tensor(picture) for picture in pictures])
    generator, kornia, rows = torch.Generator().manual_seed(0), kornias(size), []
    for name, vary in torchvisions(size).items():
        work = {"torchvision": (partial(one_by_one, vary), pictures[:few])}
        for count in BATCHES:
            work[f"ours_{count}"] = partial(WAYS[name], generator=generator), batch[:count]
            if kornia:
                work[f"kornia_{count}"] = kornia[name], batch[:count]
        spent = in_turn(work, rounds)
        row: Row = {"size": f"{size}x{size}", "way": name, "torchvision": median(spent["torchvision"])}
        row |= {f"{whose}_{count}": None for whose in ("ours", "kornia") for count in BATCHES}
        row |= {column: median(values) for column, values in spent.items()}
        for theirs in ("torchvision", f"kornia_{many}"):
            ratios = [a / b for a, b in zip(spent.get(theirs, ()), spent[f"ours_{many}"], strict=False)]
            row[f"{theirs}_over_ours"] = median(ratios) if ratios else None
        rows.append(row)
        shown = "   ".join(f"{column.replace('_', ', ')} {row[column]:.3f}" for column in spent)
        print(f"{row['size']:8} {name:16} {shown}", flush=True)
    return rows


@command
def main() -> None:
    parser = lab_parser("augmentation", __doc__)
    parser.add_argument("--quick", action="store_true", help="measures once, and writes nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with told():
        rows = [row for size in SIZES for row in measure(size, 1 if args.quick else ROUNDS)]
        if not rows[0][f"kornia_{BATCHES[0]}"]:
            print("Kornia is not installed (pip install kornia): nothing is written")
        elif not args.quick:
            draw_sheet(SHEET)
            write_json(RESULTS / "labs" / "augmentation.json", {"machine": machine()})
            write_rows(RESULTS / "labs" / "augmentation.csv", rows)


if __name__ == "__main__":
    main()
