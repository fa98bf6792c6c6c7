"""The U-Net's experiments; `python -m report.experiments NAME` runs them (see there)."""

import argparse
import random
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch.utils.data import DataLoader
from torchvision.transforms.functional import center_crop

from carvana import CarDataset, Pair, car_of, find_pairs, shape_for, split_by_car
from infer_unet import mask_of, network_size, predict_mask, predict_scores
from pictures import open_photograph, read_mask
from report.harness import CPU, climb, run_of
from report.tables import RESULTS, Rows, Trainings, matching, read_rows
from train_unet import DEFAULTS, SIZE, begin_training, dice_coefficient, mean, score_pictures, train_steps
from training import ROOT, Row, epoch_generator
from unet import UNet, load_unet

CAR_MASK = RESULTS / "unet" / "car_mask.png"
SMALL, BATCH_SIZE = 64, 8  # short side of the pictures, pictures a step of the small trainings
STEPS_IN_EQUAL_TIME = {8: (500, 2000), 16: (250, 1000), 32: (80, 320)}  # by base channels, measured on one core
RATE, CHOOSING_SEEDS = 0.003, 3  # where the search for a width's learning rate begins, and its seeds
PLACE_SIZE, PLACE_STEPS = 284, 200  # of `place`: no multiple of 16, like 572
PLACE_SHAPES = {"padded": (288, 432), "not padded": (284, 426)}  # of its trainings, height and width
CARS = (8, 16, 32, 64, 128, 258)  # to train on; the last are all
BUDGETS = {250: CARS, 1000: (8, 32, 258)}  # by steps of 8 pictures, half an epoch of all cars and two: cars
FEW, EDGES = 8, (0, 1, 2, 4)  # cars to train on, and how many of them stand before a dark edge
VIEWS = 4  # of each report car


@torch.inference_mode()
def mask_at(model: UNet, image: Image.Image, place: str, size: int = SIZE) -> np.ndarray:
    """The mask [H, W] of `image` with the network's scores laid over the photograph in one of three ways.

    "padded": the input is padded to multiples of 16, so there is a score for every pixel (infer_unet.py).
    "centred": not padded; the scores lie where the last skip was cropped from (infer_unet.py --no-pad).
    "stretched": not padded; the scores are enlarged to the whole photograph.
    """
    if place != "stretched":
        return predict_mask(model, image, size, pad=place == "padded") > 0
    scores = predict_scores(model, image, size, pad=False)  # with a rim, where it gave none
    rows, columns = (side % 16 for side in scores.shape[2:])
    scores = center_crop(scores, [scores.shape[2] - rows, scores.shape[3] - columns])
    return mask_of(scores, image.width, image.height, 0.5) > 0


def outline_shift(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """How many rows lower the car's roof and its wheels are in `found` than in `truth`, both [H, W] masks.

    The median over the columns in which both show car.
    """
    both = found.any(axis=0) & truth.any(axis=0)
    roof = found[:, both].argmax(axis=0) - truth[:, both].argmax(axis=0)
    wheels = truth[::-1, both].argmax(axis=0) - found[::-1, both].argmax(axis=0)
    return {"roof": float(np.median(roof)), "wheels": float(np.median(wheels))}


def dice_of(found: np.ndarray, truth: np.ndarray) -> float:
    return round(dice_coefficient(torch.from_numpy(found).float(), torch.from_numpy(truth).float()).item(), 6)


def place(args: argparse.Namespace, rows: Rows) -> Trainings:
    """Where do the scores of a network that crops belong, and is padding right? It depends on how it was trained.

    The shipped weights are trained on, in both ways: at 288x432, multiples of 16, and at 284x426, where the network
    crops and so are the masks. Each is then asked in three ways for the masks of the report cars, four views each, at a
    short side of 284 pixels. The shifts of roof and wheels are in rows of the network's input.

    Expected: each is best when it is asked as it was trained, by 0.002 to 0.005; stretched is the worst for both, by
    ten times as much, for no training puts rows back where they were.
    """
    training, _, report = split_by_car(find_pairs(args.data), DEFAULTS["val_cars"], seed=0)
    views = {car: [pair for pair in report if car_of(pair) == car][:: 16 // VIEWS] for car in map(car_of, report)}

    @cache
    def trained(how: str, seed: int) -> UNet:
        with run_of("unet_place", {"trained": how, "seed": seed}) as run:
            settings = {"seed": seed, "base_channels": 16, "lr": 0.0005}
            model, optimizer, scheduler = begin_training(settings, ROOT / "model.pth", PLACE_STEPS, CPU)
            run.restore(model=model, optimizer=optimizer, scheduler=scheduler)
            dataset = CarDataset(training, *PLACE_SHAPES[how], seed=seed)
            for epoch in run.epochs(PLACE_STEPS // 10):
                dataset.epoch = epoch
                drawn = torch.randint(len(training), (10, BATCH_SIZE), generator=epoch_generator(seed, epoch))
                losses = list(
                    train_steps(model, DataLoader(dataset, batch_sampler=drawn.tolist()), optimizer, scheduler)
                )
                run.record({"train_loss": sum(losses) / len(losses)})
        return model.eval()

    def score(how: str, seed: int, place: str, car: str) -> Row:
        found = []
        for pair in views[car]:
            image, truth = open_photograph(pair.photo), read_mask(pair.mask, pair.half)
            mask, scale = mask_at(trained(how, seed), image, place, PLACE_SIZE), PLACE_SIZE / min(truth.shape)
            shifts = {name: rows * scale for name, rows in outline_shift(mask, truth).items()}
            found.append({"dice": dice_of(mask, truth), **shifts})
        return {name: round(mean(found, name), 6) for name in found[0]}

    for seed, how in product(range(args.seeds), PLACE_SHAPES):
        for place, car in product(("padded", "centred", "stretched"), views):
            settings = {"trained": how, "place": place, "seed": seed, "car": car}
            yield settings, partial(score, how, seed, place, car)


def size(args: argparse.Namespace, rows: Rows) -> Trainings:
    """How large should the network's input be? With model.pth, on the photographs in `--data` at their own size.

    The ceiling is what a perfect network could reach: the true mask, made as small as the input and enlarged again.
    Expected: best at 572, the size of its last training; worse above, where objects are larger than it knows.
    """
    model = load_unet(ROOT / "model.pth", CPU)

    def score(pair: Pair, short: int) -> Row:
        image, truth = open_photograph(pair.photo), read_mask(pair.mask, pair.half)
        small = F.interpolate(
            torch.from_numpy(truth)[None, None].float(),
            network_size(*image.size, short),
            mode="bilinear",
            antialias=True,
        )
        enlarged = F.interpolate(small, truth.shape, mode="bilinear")[0, 0].numpy() >= 0.5
        return {"dice": dice_of(predict_mask(model, image, short), truth), "ceiling": dice_of(enlarged, truth)}

    for short, pair in product((144, 216, 288, 432, SIZE, 720, 1024), find_pairs(args.data)):
        settings = {"short_side": short, "car": car_of(pair), "photograph": pair.photo.name}
        yield settings, partial(score, pair, short)


@torch.inference_mode()
def largest_region(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of `mask` [H, W]: each pixel takes the highest number around it until none changes."""
    car = torch.from_numpy(mask).float()[None, None]
    numbers = car * torch.arange(1.0, car.numel() + 1).view(car.shape)
    while True:
        spread = F.max_pool2d(numbers, 3, stride=1, padding=1) * car
        if torch.equal(spread, numbers):
            counts = numbers.long().flatten().bincount()
            counts[0] = 0
            return (numbers[0, 0] == counts.argmax()).numpy() & mask
        numbers = spread


def looks(args: argparse.Namespace, rows: Rows) -> Trainings:
    """Is more than one look at a photograph worth it? With model.pth, on four views of each report car.

    The probabilities of the photograph and its mirror image, of three sizes, and of all six are averaged (what others
    call test-time augmentation); of the plain mask also the largest region alone is scored, without specks.

    Expected: some ten-thousandths for six looks; nothing for the largest region, for specks are few pixels.
    """
    model = load_unet(ROOT / "model.pth", CPU)
    _, _, report = split_by_car(find_pairs(args.data, check=False), DEFAULTS["val_cars"], seed=0)
    ways = {"one": [(SIZE, False)], "mirrored too": [(SIZE, False), (SIZE, True)]}
    ways["three sizes"] = [(size, False) for size in (432, SIZE, 720)]
    ways["six"] = list(product((432, SIZE, 720), (False, True)))

    @cache
    def probability(photo: Path, size: int, mirrored: bool) -> torch.Tensor:
        image = open_photograph(photo)
        scores = predict_scores(model, ImageOps.mirror(image) if mirrored else image, size)
        scores = F.interpolate(scores, (image.height, image.width), mode="bilinear")[0, 0].sigmoid()
        return scores.flip(1) if mirrored else scores

    def score(pair: Pair, way: str) -> Row:
        seen = [probability(pair.photo, *look) for look in ways.get(way, ways["one"])]
        found = (sum(seen) / len(seen) >= 0.5).numpy()
        if way == "one, largest region":
            found = largest_region(found)
            probability.cache_clear()
        return {"dice": dice_of(found, read_mask(pair.mask))}

    for pair in [pair for index, pair in enumerate(report) if index % 16 % (16 // VIEWS) == 0]:
        for way in (*ways, "one, largest region"):
            settings = {"looks": way, "car": car_of(pair), "photograph": pair.photo.name}
            yield settings, partial(score, pair, way)


def restored(args: argparse.Namespace, rows: Rows) -> Trainings:
    """What can a perfect mask score where masks were restored from 512x512? On masks at their original size.

    The photographs that the network learned from, and the report cars, came to this project squashed to 512x512.
    """
    for pair in find_pairs(args.data):
        truth = read_mask(pair.mask, pair.half)
        squashed = Image.fromarray(truth).resize((512, 512), Image.Resampling.NEAREST)
        back = np.asarray(squashed.resize(truth.shape[::-1], Image.Resampling.NEAREST))
        yield {"car": car_of(pair), "photograph": pair.photo.name}, lambda t=truth, b=back: {"dice": dice_of(b, t)}


def has_dark_edge(pair: Pair) -> bool:
    """Whether the photograph ends below in the dark edge of a platform, as those of 12 of the 288 cars do."""
    grey = np.asarray(open_photograph(pair.photo).convert("L"))
    return bool(grey[-max(1, len(grey) // 20) :].mean() < 100)  # 86 at most with the edge, 115 and more without


class SmallTrainings:
    """Trainings on small pictures; the photographs are read once for all of them."""

    def __init__(self, name: str, data: Path) -> None:
        self.name = name  # of the experiment
        training, selection, report = split_by_car(find_pairs(data), DEFAULTS["val_cars"], seed=0)
        self.dataset = CarDataset(training, *shape_for(training, SMALL), seed=0)
        first = {car_of(pair): pair for pair in reversed(training + report)}
        self.dark = {car for car, pair in first.items() if has_dark_edge(pair)}
        self.views: dict[tuple[str, str], list[Pair]] = {}  # by part and car
        for part, pairs in (("selection", selection), ("report", report)):
            for pair in [pair for index, pair in enumerate(pairs) if index % 16 % (16 // VIEWS) == 0]:
                self.views.setdefault((part, car_of(pair)), []).append(pair)

    def drawn(self, cars: int, seed: int, dark: int | None) -> set[str]:
        """So many of the training cars; with `dark`, exactly so many of these stand before a dark edge."""
        everyone = sorted({car_of(pair) for pair in self.dataset.pairs})
        draw = random.Random(seed)
        if dark is None:
            return set(draw.sample(everyone, cars))
        others = draw.sample([car for car in everyone if car not in self.dark], cars)
        return {*others[dark:], *draw.sample([car for car in everyone if car in self.dark], dark)}

    def train(
        self, base_channels: int, lr: float, steps: int, cars: int, seed: int, dark: int | None = None
    ) -> tuple[UNet, float]:
        """A network that learned from the cars that were `drawn`, and the seconds that it took."""
        chosen = self.drawn(cars, seed, dark)
        indices = torch.tensor([i for i, pair in enumerate(self.dataset.pairs) if car_of(pair) in chosen])
        self.dataset.seed = seed
        optimization = {"seed": seed, "base_channels": base_channels, "lr": lr}
        named = {} if dark is None else {"dark": dark}
        with run_of(self.name, {"cars": cars, "steps": steps, **named, **optimization}) as run:
            model, optimizer, scheduler = begin_training(optimization, None, steps, CPU)
            run.restore(model=model, optimizer=optimizer, scheduler=scheduler)
            for epoch in run.epochs(steps // 10):
                self.dataset.epoch = epoch
                drawn = torch.randint(len(indices), (10, BATCH_SIZE), generator=epoch_generator(seed, epoch))
                loader = DataLoader(self.dataset, batch_sampler=indices[drawn].tolist())
                losses = list(train_steps(model, loader, optimizer, scheduler, epoch))
                run.record({"train_loss": sum(losses) / len(losses)})
        return model.eval(), sum(row["seconds"] for row in run.history)

    def scores(self, part: str, settings: Row, **training: int | float) -> Trainings:
        """A row of the experiment for each car of the part: the mean Dice of its views."""
        trained = cache(partial(self.train, **training))

        def score(pairs: list[Pair]) -> Row:
            model, seconds = trained()
            return {"dice": mean(score_pictures(model, pairs, SMALL, "a car"), "dice"), "seconds": round(seconds, 1)}

        for (its, car), pairs in self.views.items():
            if its == part:
                yield {**settings, "car": car}, partial(score, pairs)

    def report_scores(self, settings: Row, **training: int | float) -> Trainings:
        """The same for the report cars of 16 channels at one rate, each with what it stands before."""
        for own, score in self.scores("report", settings, base_channels=16, lr=RATE, **training):
            yield {"edge": "dark" if own["car"] in self.dark else "none", **own}, score


def rates(args: argparse.Namespace, rows: Rows) -> Trainings:
    """Which learning rate does each width want, in half a minute of a core? Three seeds, on the selection cars.

    Expected: the wider the network, the lower its best rate.
    """
    small = SmallTrainings("unet_rates", args.data)
    for channels, (steps, _) in STEPS_IN_EQUAL_TIME.items():

        def found(lr: float, channels: int = channels) -> float:
            return dice_at(rows, channels, lr)

        for lr, seeds in climb(RATE, found, CHOOSING_SEEDS, CHOOSING_SEEDS):
            for seed in seeds:
                settings = {"base_channels": channels, "lr": lr, "seed": seed}
                yield from small.scores("selection", settings, **settings, steps=steps, cars=CARS[-1])


def dice_at(rows: Rows, channels: int, lr: float | str) -> float:
    """The mean Dice of the trainings of `rates` with this width and learning rate."""
    own = matching(rows, {"base_channels": channels, "lr": lr})
    return mean([{"dice": float(row["dice"])} for row in own], "dice")


def width(args: argparse.Namespace, rows: Rows) -> Trainings:
    """Is a narrow network that sees more pictures better than a wide one that sees fewer, in equal time?

    In half a minute of a core, and in four times that; each width at the rate that `rates` chose; three seeds.

    Expected, of the first form of this experiment, with one rate and half a minute: 16 wins; 8 cannot tell enough
    things apart, 32 has hardly begun. (8 won.) Expected of this one: in half a minute 8 wins again, whatever the rates;
    in two minutes 16 has drawn level, and 32 is still behind.
    """
    small = SmallTrainings("unet_width", args.data)
    tried = read_rows(RESULTS / "experiments" / "unet_rates.csv", needed=True)
    for budget, channels in product((0, 1), STEPS_IN_EQUAL_TIME):
        own = {row["lr"] for row in matching(tried, {"base_channels": channels})}
        lr = max(own, key=lambda lr, channels=channels: dice_at(tried, channels, lr))
        for seed in range(min(3, args.seeds)):
            settings = {"budget": ("short", "long")[budget], "base_channels": channels, "seed": seed}
            training = {"base_channels": channels, "lr": float(lr), "steps": STEPS_IN_EQUAL_TIME[channels][budget]}
            yield from small.scores("report", settings, **training, cars=CARS[-1], seed=seed)


def photographs(args: argparse.Namespace, rows: Rows) -> Trainings:
    """How many cars must it have seen? With half an epoch of all cars, and with two; three seeds.

    Expected, of the first form of this experiment, with half an epoch: from 8 to 64 cars what is missing to a Dice of 1
    falls by half, beyond that hardly. Expected of this one: the more steps, the farther to the right the curve falls;
    258 cars are then better than 32, and 8 cars gain nothing by more steps.
    """
    small = SmallTrainings("unet_photographs", args.data)
    for steps, seed in product(BUDGETS, range(min(3, args.seeds))):
        for cars in BUDGETS[steps]:
            settings = {"cars": cars, "steps": steps, "seed": seed}
            yield from small.report_scores(settings, **settings)


def edges(args: argparse.Namespace, rows: Rows) -> Trainings:
    """Eight cars to train on, of which none, one, two or four stand before a dark edge; three seeds.

    Asked when the rows of `photographs` were known: where few cars had been drawn, three report cars were read badly,
    the three before a dark edge, worst where no car with it was among the drawn. Is it the edge, or chance?

    Expected: with none the three stay below 0.6, the eleven others have 0.97; with one of eight the three come within
    0.01 of the others, with two and four no nearer; and the others lose less than 0.003 by the exchange.
    """
    small = SmallTrainings("unet_edges", args.data)
    for seed, dark in product(range(min(3, args.seeds)), EDGES):
        training = {"cars": FEW, "steps": max(BUDGETS), "dark": dark, "seed": seed}
        yield from small.report_scores({"dark": dark, "seed": seed}, **training)
