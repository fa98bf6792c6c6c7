"""Trains the U-Net on Carvana's photographs and their masks, and reports on cars that it never saw.

    python train_unet.py --data data/carvana                             the coursework's network; wants a GPU
    python train_unet.py --data data/carvana --base-channels 16 --lr 0.003 --stages "96:4:8,160:5:8,288:1:4,572:1:2"
    python train_unet.py --data data/carvana --model first.pth --stages 572:2:2    starts from weights, not from chance
    torchrun --nproc-per-node=2 train_unet.py --data data/carvana        two GPUs, the same global batch
    python train_unet.py --data data/carvana --out runs/mine --resume    goes on with a run that was stopped

The repository's `model.pth` was made in three such runs (their commands are in the README); the last ended with

    Report cars: Dice 0.9904, Jaccard 0.9813, lowest Dice 0.9233 (photographs: 224, cars: 14)

`--stages SIZE:EPOCHS[:BATCH],...` trains on small pictures first: they show the whole car, and cost little. SIZE is the
short side in pixels.

The photographs are split by car, for two views of one car are nearly one picture: some cars are kept to select the best
weights on, as many again to report on, and the rest are trained on. Kaggle's names say which car a photograph shows;
others are split one by one, so show each car once. The same photographs and `--seed` give the same split.

A run's folder gets `best.pth` (the best weights, float32), `model.pth` (the same in float16, for `infer_unet.py`),
`checkpoint.pth`, `history.csv`, `losses.csv`, `curves.png`, `scores.csv` and `worst.png` (the report cars).
"""

import argparse
import os
import random
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.utils.data import DataLoader
from tqdm import tqdm

from carvana import (
    CarDataset,
    Pair,
    car_of,
    find_pairs,
    fingerprint,
    how_shared,
    how_split,
    shape_for,
    split_by_car,
)
from infer_unet import predict_mask
from pictures import open_photograph, read_mask
from training import (
    Run,
    add_run_arguments,
    agree,
    between,
    command,
    epoch_generator,
    gathered,
    is_main,
    join_processes,
    lacks_memory,
    save_weights,
    together,
    told,
    write_rows,
    write_whole,
)
from unet import UNet, load_unet

SIZE, EPOCHS, BATCH_SIZE = 572, 5, 4
DEFAULTS = {
    "model": None,
    "stages": f"{SIZE}:{EPOCHS}:{BATCH_SIZE}",
    "base_channels": 64,
    "lr": 0.001,
    "pad": True,
    "val_cars": 14,
    "seed": 0,
    "photographs": None,
}
# Beyond these, torch fails with a traceback, or takes all memory.
STAGE_LIMITS = {"size": between(16, 4096), "epochs": between(1, 100_000), "batch": between(1, 100_000)}
WEIGHT_DECAY = 0.01
SELECTION_PICTURES = 28
SMOOTHING = 1e-4  # eps of Dice and Jaccard: two empty masks agree

Splits = tuple[list[Pair], list[Pair], list[Pair]]  # to train on, to select on, to report on


def dice_coefficient(prediction: Tensor, target: Tensor) -> Tensor:
    """Dice's coefficient 2|A and B| / (|A| + |B|) of masks [..., H, W] in [0, 1], one for each of the leading [...]."""
    both = (prediction * target).sum(dim=(-2, -1))
    total = prediction.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1))
    return (2 * both + SMOOTHING) / (total + SMOOTHING)


def jaccard(prediction: Tensor, target: Tensor) -> Tensor:
    """Jaccard's index |A and B| / |A or B| of masks [..., H, W] in [0, 1], one for each of the leading [...]."""
    both = (prediction * target).sum(dim=(-2, -1))
    either = prediction.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1)) - both
    return (both + SMOOTHING) / (either + SMOOTHING)


def segmentation_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy, which gives every pixel its gradient, plus 1 - Dice of each picture, which is the goal.

    `scores` [B, 1, H, W] before the sigmoid, `masks` [B, 1, H, W] of 0 and 1, or larger: of a picture that was not
    padded the network gives the middle.
    """
    if masks.shape != scores.shape:
        from torchvision.transforms.functional import center_crop  # takes as long to import as PyTorch itself

        masks = center_crop(masks, list(scores.shape[2:]))
    dice = dice_coefficient(torch.sigmoid(scores), masks).mean()
    return F.binary_cross_entropy_with_logits(scores, masks) + 1 - dice


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` has instructions for bfloat16, which are faster, and does not only emulate it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def score_pictures(
    model: UNet, pairs: list[Pair], size: int, description: str, pad: bool = True
) -> list[dict[str, Any]]:
    """Dice and Jaccard of the predicted mask of each photograph, at the photograph's full size."""
    model.eval()
    rows = []
    for pair in tqdm(pairs, description, unit="picture", leave=False, disable=None):
        prediction = torch.from_numpy(predict_mask(model, open_photograph(pair.photo), size, pad=pad)).float()
        target = torch.from_numpy(read_mask(pair.mask, pair.half)).float()
        scores = {"dice": dice_coefficient(prediction, target).item(), "jaccard": jaccard(prediction, target).item()}
        rows.append({"photograph": pair.photo.name, "car": car_of(pair), **scores})
    return rows


def mean(rows: list[dict[str, Any]], column: str) -> float:
    return sum(row[column] for row in rows) / len(rows)


def parse_stages(text: str, batch_size: int = 1) -> list[tuple[int, int, int]]:
    """ "96:4:8,572:1" -> [(96, 4, 8), (572, 1, batch_size)]: short side in pixels, epochs, pictures a step."""
    stages = []
    for stage in text.split(","):
        if not re.fullmatch(r"\d{1,9}:\d{1,9}(:\d{1,9})?", stage):
            raise ValueError(f"--stages: {stage!r} is not SIZE:EPOCHS or SIZE:EPOCHS:BATCH")
        numbers = stage.split(":") + [str(batch_size)]
        try:
            stages.append(tuple(limit(number) for limit, number in zip(STAGE_LIMITS.values(), numbers, strict=False)))
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"--stages: a number of {stage!r} {error}") from None
    return stages


def epoch_batches(count: int, batch_size: int, generator: torch.Generator, rank: int, ranks: int) -> list[list[int]]:
    """One epoch's indices in random order, in batches, of each this process's share; a remainder is left out."""
    order = torch.randperm(count, generator=generator)[: count - count % batch_size].view(-1, batch_size)
    return order[:, rank::ranks].tolist()


def train_steps(
    net: torch.nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    epoch: int = 1,
    first_step: int = 1,
    loss_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    max_norm: float = 1.0,
) -> Iterator[float]:
    """Trains on every (images [B, 3, H, W] in [0, 1], masks [B, 1, H, W] of 0 and 1) of `batches` once.

    Yields the loss after each step; where several processes train together, the mean of theirs. Raises
    FloatingPointError, before the weights are touched, as soon as the loss or its gradient is no finite number.
    """
    net.train()
    device = next(net.parameters()).device
    for step, (images, masks) in enumerate(batches, start=first_step):
        images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
        masks = masks.to(device, non_blocking=True)
        # In bfloat16 where that is faster; its range is that of float32, so it needs no loss scaler.
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            scores = net(images)
        loss = (loss_function or segmentation_loss)(scores.float(), masks)
        shown = loss.detach().clone()
        if dist.is_initialized():
            dist.all_reduce(shown)
            shown /= dist.get_world_size()
        optimizer.zero_grad()
        loss.backward()
        # Without normalization layers, one odd batch can throw the weights far off.
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), max_norm)
        for what, value in {"loss": shown, "gradient": norm}.items():
            if not value.isfinite():
                lr = scheduler.get_last_lr()[0]
                raise FloatingPointError(
                    f"the {what} became {value:.0f} at epoch {epoch}, step {step}, learning rate {lr:.3g}: "
                    "try a lower --lr"
                )
        optimizer.step()
        scheduler.step()
        yield shown.item()


def in_figures(name: str) -> dict[str, Any]:
    """`name` as the arguments of a text that matplotlib draws: as it is where the fonts here allow it."""
    from matplotlib.font_manager import fontManager, get_font

    chinese = {"Microsoft YaHei", "PingFang SC", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "SimHei"}
    family = ["DejaVu Sans", *sorted(chinese & set(fontManager.get_font_names()))]
    fonts = [get_font(fontManager.findfont(font)) for font in family]
    drawn = [any(font.get_char_index(ord(letter)) for font in fonts) for letter in name]
    letters = [letter if has else ascii(letter)[1:-1] for letter, has in zip(name, drawn, strict=True)]
    return {"label": "".join(letters), "family": family, "parse_math": False}


def plot_worst(
    path: Path, model: UNet, pairs: list[Pair], scores: list[dict[str, Any]], size: int, pad: bool = True
) -> None:
    """Draws the eight photographs of lowest Dice; red is what was wrongly taken for car, blue what was missed."""
    from matplotlib.figure import Figure  # takes a second, which every command would pay

    worst = sorted(zip(scores, pairs, strict=True), key=lambda item: item[0]["dice"])[:8]
    rows = -(-len(worst) // 4)
    figure = Figure(figsize=(16, 2.9 * rows + 0.4), layout="constrained")
    for axes in figure.subplots(rows, 4, squeeze=False).flat:
        axes.axis("off")
    for axes, (row, pair) in zip(figure.axes, worst, strict=False):
        image, target = open_photograph(pair.photo), read_mask(pair.mask, pair.half)
        prediction = predict_mask(model, image, size, pad=pad) > 0
        picture = np.asarray(image.convert("L").convert("RGB")) * 0.7  # grey, for cars may be red or blue
        picture[prediction & ~target] = (255, 0, 0)
        picture[target & ~prediction] = (0, 90, 255)
        axes.imshow(picture.astype(np.uint8))
        axes.set_title(**in_figures(f"{row['photograph']}: Dice {row['dice']:.3f}"), fontsize=10)
    figure.suptitle("The lowest Dice of the report cars; red: wrongly taken for car, blue: missed")
    with write_whole(path) as part:
        figure.savefig(part, dpi=150)


def begin_training(
    settings: dict[str, Any], first_weights: str | None, steps: int, device: torch.device
) -> tuple[UNet, torch.optim.Optimizer, OneCycleLR]:
    """The network, by chance or with `first_weights`, its optimizer, and its learning rate over all `steps`."""
    torch.manual_seed(settings["seed"])
    model = UNet(3, 1, settings["base_channels"])
    if first_weights is not None:
        model.load_state_dict(load_unet(first_weights, torch.device("cpu")).state_dict())
    model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["lr"], weight_decay=WEIGHT_DECAY)
    warm_up = 0.05 if steps != 20 else 0.06  # 5% of 20 is one step, and then OneCycleLR divides by zero
    scheduler = OneCycleLR(optimizer, settings["lr"], total_steps=steps, pct_start=warm_up, cycle_momentum=False)
    return model, optimizer, scheduler


def train(run: Run, splits: Splits, device: torch.device, workers: int) -> None:
    """Trains from the first step, or from the one after the run's checkpoint, and reports."""
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    training, selection, report = splits
    settings, seed = run.settings, run.settings["seed"]
    sample = random.Random(seed).sample(selection, min(SELECTION_PICTURES, len(selection)))
    epochs = [(size, batch_size) for size, count, batch_size in parse_stages(settings["stages"]) for _ in range(count)]
    last_size = epochs[-1][0]
    steps = sum(len(training) // batch_size for _, batch_size in epochs)
    first_weights = settings["model"] if run.is_new else None
    model, optimizer, scheduler = begin_training(settings, first_weights, steps, device)
    run.restore(model=model, optimizer=optimizer, scheduler=scheduler)
    net = DistributedDataParallel(model) if ranks > 1 else model

    dataset = None
    for epoch in run.epochs(len(epochs)):
        size, batch_size = epochs[epoch - 1]
        height, width = shape_for(training, size, settings["pad"])
        if dataset is None or (dataset.height, dataset.width) != (height, width):
            dataset = CarDataset(training, height, width, seed, quiet=rank > 0)
        dataset.epoch = epoch
        batches = epoch_batches(len(training), batch_size, epoch_generator(seed, epoch), rank, ranks)
        left = batches[run.steps_done :]
        # With a generator of its own, for it would draw from PyTorch's, once more where a run goes on.
        own = {"generator": torch.Generator(), "pin_memory": device.type == "cuda"}
        loader = DataLoader(dataset, batch_sampler=left, num_workers=workers, **own)
        description = f"epoch {epoch}/{len(epochs)} at {height}x{width}"
        quiet = rank > 0 or None  # None: where standard error is no terminal
        bar = tqdm(loader, description, len(batches), initial=run.steps_done, unit="step", leave=False, disable=quiet)
        for loss in train_steps(net, bar, optimizer, scheduler, epoch, run.steps_done + 1):
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            run.step({"epoch": epoch, "size": size, "loss": round(loss, 6)})
        if not all(weights.isfinite().all() for weights in model.parameters()):
            raise FloatingPointError(f"weights became infinite at the end of epoch {epoch}: try a lower --lr")
        if not is_main():
            run.record({})  # the others only count their epochs
            continue

        scores = score_pictures(model, sample, size, "selection cars", settings["pad"])
        dice = round(mean(scores, "dice"), 6)
        # Only weights that were trained at the last size are candidates: it is the size that they will be used at.
        if size == last_size and all(dice > row["dice"] for row in run.history if row["size"] == last_size):
            save_weights(run.out / "best.pth", model)
        train_loss = sum(row["loss"] for row in run.losses[-len(batches) :]) / len(batches)
        row = {"size": size, "batch_size": batch_size, "train_loss": train_loss}
        row = run.record({**row, "dice": dice, "jaccard": mean(scores, "jaccard")})
        print(
            f"{description}: train loss {train_loss:.4f}, selection Dice {dice:.4f}, {row['seconds']:.0f} s", flush=True
        )

    if is_main():
        report_on(run, report, device, last_size)
        loss = {"training": [row["train_loss"] for row in run.history]}
        missing = {f"1 - {name}": [1 - row[name.lower()] for row in run.history] for name in ("Dice", "Jaccard")}
        run.finish({"Loss": loss, "What is missing to a perfect mask, selection cars": missing})


def report_on(run: Run, report: list[Pair], device: torch.device, size: int) -> None:
    """Writes the best weights as `model.pth`, and what they do on the report cars, which nothing was chosen on."""
    model = UNet(3, 1, run.settings["base_channels"])
    model.load_state_dict(torch.load(run.out / "best.pth", map_location="cpu", weights_only=True))
    save_weights(run.out / "model.pth", model, torch.float16)
    model, pad = load_unet(run.out / "model.pth", device), run.settings["pad"]
    scores = score_pictures(model, report, size, "report cars", pad)
    write_rows(run.out / "scores.csv", scores)
    plot_worst(run.out / "worst.png", model, report, scores, size, pad)
    print(
        f"Report cars: Dice {mean(scores, 'dice'):.4f}, Jaccard {mean(scores, 'jaccard'):.4f}, lowest Dice "
        f"{min(row['dice'] for row in scores):.4f} (photographs: {len(report)}, cars: {run.settings['val_cars']})"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="Kaggle's folder, or imgs/ and masks/")
    add("--extra", type=Path, metavar="DIR", help="more pictures, laid out alike, only to train on")
    add("--model", metavar="FILE", help="weights to start from, such as model.pth; sets the width")
    add("--epochs", type=STAGE_LIMITS["epochs"], help=f"times through the training set (default: {EPOCHS})")
    batch_help = f"photographs a step, on all devices (default: {BATCH_SIZE})"
    add("--batch-size", type=STAGE_LIMITS["batch"], help=batch_help)
    add("--size", type=STAGE_LIMITS["size"], help=f"short side of the pictures, in pixels (default: {SIZE})")
    add("--stages", metavar="SIZE:EPOCHS[:BATCH],...", help="several sizes in turn, the small ones first")
    add("--base-channels", type=between(1, 1024), help="width of the first level (default: 64, the coursework's)")
    add("--lr", type=between(1e-12, 1e6), help=f"highest learning rate (default: {DEFAULTS['lr']})")
    pad_help = "train on pictures whose sides are no multiples of 16, for infer_unet.py --no-pad"
    add("--no-pad", dest="pad", action="store_false", default=None, help=pad_help)
    add("--val-cars", type=between(1, 10**6), help="cars to select on, and as many to report on (default: 14)")
    add("--seed", type=between(0, 2**32 - 1), help="first weights, split, order, variation (default: 0)")
    workers_help = "processes that load photographs (default: none, on CUDA a core each, at most 8)"
    add("--workers", type=between(0, 1024), help=workers_help)
    add_run_arguments(parser, "unet")
    return parser.parse_args()


def default_workers(device: torch.device) -> int:
    """Processes that load photographs: as many as keep a GPU fed; none without one, for the network needs the cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))) if device.type == "cuda" else 0


def given_stages(args: argparse.Namespace) -> str | None:
    """What --stages, or --size, --epochs and --batch-size, come to, in full; None if none of them is given."""
    if args.stages is not None and (args.epochs or args.size):
        raise ValueError("--stages already says sizes and epochs: leave --size and --epochs out")
    if args.batch_size and args.stages and all(stage.count(":") == 2 for stage in args.stages.split(",")):
        raise ValueError("--stages already says every stage's batch: leave --batch-size out")
    if args.stages is None and not (args.size or args.epochs or args.batch_size):
        return None
    stages = f"{args.size or SIZE}:{args.epochs or EPOCHS}" if args.stages is None else args.stages
    return ",".join(":".join(map(str, stage)) for stage in parse_stages(stages, args.batch_size or BATCH_SIZE))


def find_pictures(args: argparse.Namespace) -> tuple[list[Pair], list[Pair]]:
    """The pairs in --data and in --extra, looked at by one process a machine; raises ValueError or OSError."""
    machine, is_first = os.environ.get("GROUP_RANK"), os.environ.get("LOCAL_RANK", "0") == "0"  # set by torchrun
    found = together(
        lambda: (find_pairs(args.data), find_pairs(args.extra) if args.extra else []) if is_first else None
    )
    pairs, extra = next(others for place, others in gathered((machine, found)) if place == machine and others)
    agree(fingerprint(pairs + extra), "the photographs in --data and --extra are not the same on all machines")
    return pairs, extra


def check_fit(settings: dict[str, Any], pairs: list[Pair], extra: list[Pair], ranks: int) -> Splits:
    """The pairs to train on, select on and report on; ValueError if they or the processes do not fit the settings."""
    training, selection, report = split_by_car(pairs, settings["val_cars"], settings["seed"])
    known = sorted({car_of(pair) for pair in extra} & {car_of(pair) for pair in selection + report})
    if known:
        named = ", ".join(known[:3]) + (f" and {len(known) - 3} more" if len(known) > 3 else "")
        raise ValueError(f"--extra shows cars that are kept out of the training, {named}: take them out of its folder")
    for _, _, batch_size in parse_stages(settings["stages"]):
        if batch_size % ranks:
            raise ValueError(f"a batch of {batch_size} cannot be shared equally by {ranks} processes")
        if batch_size > len(training):
            raise ValueError(f"a batch of {batch_size} is more than the {len(training)} photographs to train on")
    return training + extra, selection, report


def begin(args: argparse.Namespace, device: torch.device, pairs: list[Pair], extra: list[Pair]) -> tuple[Run, Splits]:
    """The run that is asked for, and its pairs; nothing is written. Raises ValueError, OSError or Finished."""
    args.stages, args.photographs = given_stages(args), fingerprint(pairs + extra)
    run = Run("train_unet.py", args, DEFAULTS, device)
    if run.is_new and args.model is not None:
        width = load_unet(args.model, torch.device("cpu")).down_conv1[0].out_channels
        if args.base_channels not in (None, width):
            raise ValueError(f"{args.model} has {width} base channels, not {args.base_channels}")
        run.settings["base_channels"] = width
    return run, check_fit(run.settings, pairs, extra, int(os.environ.get("WORLD_SIZE", 1)))


@command
def main() -> None:
    args = parse_arguments()
    with told():
        device = join_processes(args.device)
        pairs, extra = find_pictures(args)
        run, splits = together(lambda: begin(args, device, pairs, extra))
        agree([run.settings, run.history, run.steps_done], "--out must be a folder that all machines see")
    warnings.filterwarnings("once", message="This DataLoader will create")  # more workers than cores: said every epoch
    try:
        with run:
            if is_main():
                training, selection, report = map(len, splits)
                print(
                    f"Training on {training} photographs, selecting on {selection}, reporting on {report}: "
                    f"{how_split(pairs)}; {how_shared(pairs + extra)}"
                )
                print(f"Using device {device}, writing to {run.out}", flush=True)
            train(run, splits, device, default_workers(device) if args.workers is None else args.workers)
    except ValueError as error:  # a photograph that was whole when it was checked; a worker puts its traceback first
        sys.exit(f"error: {str(error).strip().splitlines()[-1].removeprefix('ValueError: ')}")
    except (RuntimeError, MemoryError) as error:
        if lack := lacks_memory(error, "choose a smaller --batch-size, --size or --base-channels"):
            sys.exit(f"error: {lack}")
        raise


if __name__ == "__main__":
    main()
