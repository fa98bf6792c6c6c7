"""Trains the U-Net on Carvana's photographs and their masks, and reports on cars that it never saw.

    python train_unet.py --data data/carvana                             the coursework's network; wants a GPU
    python train_unet.py --data data/carvana --base-channels 16 --lr 0.003 --stages "96:4:8,160:5:8,288:1:4,572:1:2"
    python train_unet.py --data data/carvana --model first.pth --stages 572:2:2    starts from weights, not from chance
    torchrun --nproc-per-node=2 train_unet.py --data data/carvana        two GPUs, the same global batch
    python train_unet.py --data data/carvana --out runs/mine --resume    goes on with a run that was stopped

The repository's `model.pth` was made in three such runs (their commands are in the README), in about four hours on a
CPU; the last ended with

    Report cars: Dice 0.9904, Jaccard 0.9813, lowest Dice 0.9233 (photographs: 224, cars: 14)

`--stages SIZE:EPOCHS[:BATCH],...` trains on small pictures first: they show the whole car, and cost little. SIZE is the
short side in pixels.

The photographs are split by car, for two views of one car are nearly one picture: some cars are kept to select the best
weights on, as many again to report on, and the rest are trained on. Kaggle's names say which car a photograph shows;
photographs with other names are split one by one, so show each car once. The same photographs and `--seed` give the
same split. With others, weights given by `--model` may have been trained on the cars reported on.

A run's folder gets `best.pth` (the best weights, float32), `model.pth` (the same in float16, for `infer_unet.py`),
`checkpoint.pth`, `history.csv`, `losses.csv`, `curves.png`, `scores.csv` and `worst.png` (the report cars).
"""

import argparse
import contextlib
import os
import random
import re
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from infer_unet import FORMATS, open_photograph, predict_mask
from training import (
    environment,
    epoch_generator,
    pick_device,
    plot_curves,
    resumable,
    save_checkpoint,
    save_weights,
    settle,
    start_run,
    write_history,
    write_whole,
)
from unet import UNet, load_unet

SIZE, EPOCHS, BATCH_SIZE = 572, 5, 4
DEFAULTS = {
    "model": None,
    "extra": None,
    "stages": f"{SIZE}:{EPOCHS}:{BATCH_SIZE}",
    "base_channels": 64,
    "lr": 0.001,
    "val_cars": 14,
    "seed": 0,
    "photographs": None,
    "extra_photographs": None,
}
LIMITS = {  # beyond these, torch fails with a traceback, or takes all memory
    "size": (16, 4096),
    "epochs": (1, 100_000),
    "batch size": (1, 100_000),
    "base channels": (1, 1024),
    "lr": (1e-12, 1e6),
    "val cars": (1, 1_000_000),
    "seed": (0, 2**32 - 1),
    "workers": (0, 1024),
}
WEIGHT_DECAY = 0.01
FOLDERS = (("train", "train_masks"), ("train_hq", "train_masks"), ("imgs", "masks"))
SELECTION_PICTURES = 28
CHECKPOINT_SECONDS = 120
CACHE_BYTES = 2**30
SMOOTHING = 1e-4  # eps of Dice and Jaccard: two empty masks agree
SCRIPT = "train_unet.py"

Pair = tuple[Path, Path]  # a photograph and its mask


def find_pairs(data: Path, check: bool = True) -> list[Pair]:
    """The photographs in `data` with their masks, in the order of their names.

    Takes Kaggle's `train/CAR_VIEW.jpg` (or `train_hq/`) and `train_masks/CAR_VIEW_mask.gif`, or `imgs/` and `masks/`
    with equal names.
    With `check` each is opened once, to see that it is whole. Raises ValueError, its message meant for the user, that
    names every pair that cannot be used; OSError if a folder cannot be read.
    """
    layout = next(((data / photos, data / masks) for photos, masks in FOLDERS if (data / photos).is_dir()), None)
    if layout is None:
        raise ValueError(
            f"no photographs in {data}: there should be {data / 'train'} and {data / 'train_masks'}, unpacked from "
            "train_hq.zip or train.zip and train_masks.zip of https://www.kaggle.com/c/carvana-image-masking-challenge"
        )
    photos, masks = layout
    if not masks.is_dir():
        raise ValueError(f"{photos} has no masks: there should be a folder {masks}")
    photo_of, doubles = pictures_by_name(photos)
    mask_of, double_masks = pictures_by_name(masks)
    faults = doubles + double_masks
    faults += [f"{path.name}: no mask in {masks}" for name, path in photo_of.items() if name not in mask_of]
    faults += [f"{path.name}: no photograph in {photos}" for name, path in mask_of.items() if name not in photo_of]
    pairs = [(path, mask_of[name]) for name, path in photo_of.items() if name in mask_of]
    if check:
        faults += [fault for fault in in_threads(pair_fault, pairs, "checking") if fault]
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise ValueError(f"{count} in the pictures in {data}:\n  " + "\n  ".join(faults))
    if not pairs:
        raise ValueError(f"no photographs in {photos}")
    return pairs


def pictures_by_name(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The pictures in `folder` by name, without ending and "_mask"; and of each second one of a name, what is wrong."""
    pictures: dict[str, Path] = {}
    faults = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or Image.registered_extensions().get(path.suffix.lower()) not in FORMATS:
            continue  # what systems leave in folders, such as Thumbs.db
        first = pictures.setdefault(path.stem.removesuffix("_mask"), path)
        if first != path:
            faults.append(f"{path.name}: a second picture beside {first}")
    return pictures, faults


def in_threads(work: Callable[[Any], Any], items: list[Any], description: str, quiet: bool = False) -> Iterator[Any]:
    """`work` of each item, in order, with a progress bar; several at once, for Pillow decodes outside Python's lock."""
    with ThreadPoolExecutor() as pool:
        results = pool.map(work, items)
        yield from tqdm(results, description, len(items), unit="picture", leave=False, disable=quiet or None)


def pair_fault(pair: Pair) -> str | None:
    """What is wrong with a photograph and its mask, None if nothing."""
    photo, mask = pair
    try:
        size, (height, width) = open_photograph(photo).size, read_mask(mask).shape
    except ValueError as error:
        return f"{photo.name}: {error}"
    if size != (width, height):
        return f"{photo.name}: {size[0]}x{size[1]} pixels, but its mask has {width}x{height}"
    return None


def read_mask(path: Path) -> np.ndarray:
    """The mask at `path` as bool [H, W], True on the car; its two values may be any, the brighter is the car.

    A mask of one value shows no car if it is black, else nothing but car. Raises ValueError if it cannot be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            values = np.asarray(ImageOps.exif_transpose(image).convert("L"))
    except Image.UnidentifiedImageError:
        raise ValueError(f"its mask {path} is not a picture that Pillow can open safely") from None
    except Exception as error:  # Pillow's decoders raise almost anything for a damaged file
        raise ValueError(f"cannot read its mask {path}: {getattr(error, 'strerror', None) or error}") from None
    low, high = int(values.min()), int(values.max())
    return values > (low + high) / 2 if high > low else values > 0


def car_of(pair: Pair) -> str:
    """The car that a photograph shows: CAR of Kaggle's CAR_VIEW, 12 hexadecimal digits and two decimal ones.

    A photograph with any other name, such as a camera's IMG_0001, stands for itself.
    """
    stem = pair[0].stem
    return stem[:12] if re.fullmatch(r"[0-9a-f]{12}_\d\d", stem) else stem


def how_split(pairs: list[Pair]) -> str:
    """What `split_by_car` goes by in these photographs, as the end of a sentence."""
    named = sum(car_of(pair) != pair[0].stem for pair in pairs)
    if named == len(pairs):
        return "split by car"
    other = "split by photograph, for their names do not say which car they show"
    return f"split by car where names say it ({named} photographs), else by photograph" if named else other


def fingerprint(pairs: list[Pair]) -> str:
    """What tells one set of photographs from another: their number, and a checksum of their names."""
    names = "\n".join(photo.name for photo, _ in pairs)
    return f"{len(pairs)} with checksum {zlib.crc32(names.encode()):08x}"


def split_by_car(pairs: list[Pair], val_cars: int, seed: int) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Pairs to train on, to select on and to report on; the last two show `val_cars` cars each, chosen by the seed.

    Raises ValueError, its message meant for the user, if that leaves no car to train on.
    """
    cars = sorted({car_of(pair) for pair in pairs})
    if len(cars) <= 2 * val_cars:
        raise ValueError(
            f"keeping 2 x {val_cars} cars out leaves none of the {len(cars)} to train on (photographs count as one "
            "car where they are named as Kaggle's are, 0cdf5b5d0ce1_01.jpg to _16.jpg): choose a smaller --val-cars"
        )
    random.Random(seed).shuffle(cars)
    selection, report = set(cars[:val_cars]), set(cars[val_cars : 2 * val_cars])
    kept_out = selection | report
    return (
        [pair for pair in pairs if car_of(pair) not in kept_out],
        [pair for pair in pairs if car_of(pair) in selection],
        [pair for pair in pairs if car_of(pair) in report],
    )


def load_sample(pair: Pair, height: int, width: int) -> Tensor:
    """A photograph and its mask at `height` x `width`, uint8 [4, H, W]: red, green, blue from 0 to 255, mask 0 or 1."""
    image = open_photograph(pair[0]).resize((width, height), Image.Resampling.BILINEAR)
    mask = Image.fromarray(read_mask(pair[1]).astype(np.uint8) * 255).resize((width, height), Image.Resampling.BILINEAR)
    sample = np.dstack([np.asarray(image), np.asarray(mask) > 127])
    return torch.from_numpy(sample).permute(2, 0, 1).contiguous()


def augment(sample: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the samples mirrored, a third cut closer by up to a fifth, the light of all changed; [4, H, W] uint8."""
    flip, close, share, top, left, light, *tint = torch.rand(9, generator=generator).tolist()
    _, height, width = sample.shape
    if flip < 0.5:
        sample = sample.flip(2)
    if close < 1 / 3:
        share = 1 - 0.2 * share
        rows, columns = round(share * height), round(share * width)
        top, left = round(top * (height - rows)), round(left * (width - columns))
        cut = sample[None, :, top : top + rows, left : left + columns]
        sample = F.interpolate(cut.float(), size=(height, width), mode="bilinear", align_corners=False)[0]
        sample = sample.round().to(torch.uint8)
    gains = [0.8 + 0.4 * light + 0.1 * (channel - 0.5) for channel in tint]
    image = (sample[:3] * torch.tensor(gains).view(3, 1, 1)).clamp(0, 255).to(torch.uint8)
    return torch.cat([image, sample[3:]])


class CarDataset(Dataset):
    """Photographs and masks of one size, varied anew in each epoch.

    What a sample looks like depends on seed, epoch and index alone, not on the worker that makes it.
    """

    def __init__(self, pairs: list[Pair], height: int, width: int, seed: int, quiet: bool = False) -> None:
        self.pairs, self.height, self.width, self.seed = pairs, height, width, seed
        self.epoch = 1
        # Decoding a photograph costs a third as much as training on it at 96x144, and nothing worth saving at 576x864.
        # Loaded beforehand, for what a worker process keeps is lost with it at the end of the epoch.
        self.samples: Tensor | None = None
        if len(pairs) * 4 * height * width <= CACHE_BYTES:
            self.samples = torch.empty(len(pairs), 4, height, width, dtype=torch.uint8)
            loaded = in_threads(self.load, range(len(pairs)), f"loading at {height}x{width}", quiet)
            for index, sample in enumerate(loaded):
                self.samples[index] = sample

    def load(self, index: int) -> Tensor:
        return load_sample(self.pairs[index], self.height, self.width)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """An image [3, H, W] in [0, 1], and its mask [1, H, W] of 0 and 1."""
        sample = self.load(index) if self.samples is None else self.samples[index]
        sample = augment(sample, epoch_generator(self.seed, self.epoch, index + 1))
        return sample[:3] / 255, sample[3:].float()


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

    `scores` [B, 1, H, W] before the sigmoid, `masks` [B, 1, H, W] of 0 and 1.
    """
    dice = dice_coefficient(torch.sigmoid(scores), masks).mean()
    return F.binary_cross_entropy_with_logits(scores, masks) + 1 - dice


def bfloat16_where_fast(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 on CUDA and on CPUs with AMX tiles, where it is twice as fast; its range needs no scaler."""
    amx = getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16", False)
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else amx
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def score_pictures(model: UNet, pairs: list[Pair], size: int, description: str) -> list[dict[str, Any]]:
    """Dice and Jaccard of the predicted mask of each photograph, at the photograph's full size."""
    model.eval()
    rows = []
    for pair in tqdm(pairs, description, unit="picture", leave=False, disable=None):
        prediction = torch.from_numpy(predict_mask(model, open_photograph(pair[0]), size)).float()
        target = torch.from_numpy(read_mask(pair[1])).float()
        dice, overlap = dice_coefficient(prediction, target).item(), jaccard(prediction, target).item()
        rows.append({"photograph": pair[0].name, "car": car_of(pair), "dice": dice, "jaccard": overlap})
    return rows


def mean(rows: list[dict[str, Any]], column: str) -> float:
    return sum(row[column] for row in rows) / len(rows)


def parse_stages(text: str, batch_size: int = 1) -> list[tuple[int, int, int]]:
    """ "96:4:8,572:1" -> [(96, 4, 8), (572, 1, batch_size)]: short side in pixels, epochs, pictures a step."""
    stages = []
    for stage in text.split(","):
        if not re.fullmatch(r"\d{1,9}:\d{1,9}(:\d{1,9})?", stage):
            raise ValueError(f"--stages: {stage!r} is not SIZE:EPOCHS or SIZE:EPOCHS:BATCH")
        size, epochs, *batch = map(int, stage.split(":"))
        stages.append((size, epochs, *(batch or [batch_size])))
        for name, value in zip(LIMITS, stages[-1], strict=False):
            check_limit(f"--stages: {name} in {stage!r}", value, name)
    return stages


def shape_for(pairs: list[Pair], size: int) -> tuple[int, int]:
    """Height and width to train at: the first photograph's shape, `size` its short side, both multiples of 16.

    All photographs are brought to this shape, for a batch has one; Carvana's all have the same.
    """
    width, height = open_photograph(pairs[0][0]).size
    scale = size / min(width, height)
    return tuple(16 * max(1, round(side * scale / 16 + 0.25)) for side in (height, width))


def epoch_batches(count: int, batch_size: int, generator: torch.Generator, rank: int, ranks: int) -> list[list[int]]:
    """One epoch's indices in random order, in batches, of each this process's share; a remainder is left out."""
    order = torch.randperm(count, generator=generator)[: count - count % batch_size].view(-1, batch_size)
    return order[:, rank::ranks].tolist()


def train_steps(
    net: torch.nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    scheduler: OneCycleLR,
    epoch: int = 1,
    first_step: int = 1,
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
        with bfloat16_where_fast(device):
            scores = net(images)
        loss = segmentation_loss(scores.float(), masks)
        shown = loss.detach().clone()
        if dist.is_initialized():
            dist.all_reduce(shown)
            shown /= dist.get_world_size()
        optimizer.zero_grad()
        loss.backward()
        # Without normalization layers, one odd batch can throw the weights far off.
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), max_norm=1.0)
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


def plot_worst(path: Path, model: UNet, pairs: list[Pair], scores: list[dict[str, Any]], size: int) -> None:
    """Draws the eight photographs of lowest Dice; red is what was wrongly taken for car, blue what was missed."""
    worst = sorted(zip(scores, pairs, strict=True), key=lambda item: item[0]["dice"])[:8]
    rows = -(-len(worst) // 4)
    figure = Figure(figsize=(16, 2.9 * rows + 0.4), layout="constrained")
    for axes in figure.subplots(rows, 4, squeeze=False).flat:
        axes.axis("off")
    for axes, (row, (photo, mask)) in zip(figure.axes, worst, strict=False):
        image, target = open_photograph(photo), read_mask(mask)
        prediction = predict_mask(model, image, size) > 0
        picture = np.asarray(image.convert("L").convert("RGB")) * 0.7  # grey, for cars may be red or blue
        picture[prediction & ~target] = (255, 0, 0)
        picture[target & ~prediction] = (0, 90, 255)
        axes.imshow(picture.astype(np.uint8))
        axes.set_title(f"{row['photograph']}: Dice {row['dice']:.3f}", fontsize=10)
    figure.suptitle("The lowest Dice of the report cars; red: wrongly taken for car, blue: missed")
    with write_whole(path) as part:
        figure.savefig(part, dpi=150)


def start_or_restore(
    settings: dict[str, Any], checkpoint: dict[str, Any] | None, steps: int, device: torch.device
) -> tuple[UNet, torch.optim.Optimizer, OneCycleLR]:
    """The network, its optimizer and its learning rate over all `steps`, new or as `checkpoint` has them."""
    torch.manual_seed(settings["seed"])
    model = UNet(3, 1, settings["base_channels"])
    if settings["model"] is not None and checkpoint is None:
        model.load_state_dict(load_unet(settings["model"], torch.device("cpu")).state_dict())
    model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["lr"], weight_decay=WEIGHT_DECAY)
    warm_up = 0.05 if steps != 20 else 0.06  # 5% of 20 is one step, and then OneCycleLR divides by zero
    scheduler = OneCycleLR(optimizer, settings["lr"], total_steps=steps, pct_start=warm_up, cycle_momentum=False)
    if checkpoint is not None:
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        scheduler.load_state_dict(checkpoint["scheduler"])
    return model, optimizer, scheduler


def train(
    settings: dict[str, Any],
    checkpoint: dict[str, Any] | None,
    splits: tuple[list[Pair], list[Pair], list[Pair]],
    device: torch.device,
    workers: int,
    out: Path | None,
) -> None:
    """Trains from the first step, or from the one after `checkpoint`; the process of rank 0 writes what is in `out`."""
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    training, selection, report = splits
    seed = settings["seed"]
    sample = random.Random(seed).sample(selection, min(SELECTION_PICTURES, len(selection)))
    epochs = [(size, batch_size) for size, count, batch_size in parse_stages(settings["stages"]) for _ in range(count)]
    last_size = epochs[-1][0]

    steps = sum(len(training) // batch_size for _, batch_size in epochs)
    model, optimizer, scheduler = start_or_restore(settings, checkpoint, steps, device)
    history, losses, best = [], [], -1.0
    steps_done = 0  # of the epoch that goes on
    if checkpoint is not None:
        history, losses, best = checkpoint["history"], checkpoint["losses"], checkpoint["best"]
        steps_done = checkpoint["steps_done"]
    net = DistributedDataParallel(model) if ranks > 1 else model

    def save(finished: bool = False) -> None:
        if rank > 0:
            return
        state = {
            "script": SCRIPT,
            "settings": settings,
            "environment": environment(device) if checkpoint is None else checkpoint["environment"],
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "history": history,
            "losses": losses,
            "best": best,
            "steps_done": steps_done,
            "finished": finished,
        }
        save_checkpoint(out / "checkpoint.pth", state)
        write_history(out / "losses.csv", losses)
        if history:
            write_history(out / "history.csv", history)

    dataset = None
    saved = time.monotonic()
    for epoch in range(len(history) + 1, len(epochs) + 1):
        start = time.perf_counter()
        size, batch_size = epochs[epoch - 1]
        height, width = shape_for(training, size)
        if dataset is None or (dataset.height, dataset.width) != (height, width):
            dataset = CarDataset(training, height, width, seed, quiet=rank > 0)
        dataset.epoch = epoch
        batches = epoch_batches(len(training), batch_size, epoch_generator(seed, epoch), rank, ranks)
        loader = DataLoader(
            dataset, batch_sampler=batches[steps_done:], num_workers=workers, pin_memory=device.type == "cuda"
        )
        description = f"epoch {epoch}/{len(epochs)} at {height}x{width}"
        quiet = rank > 0 or None  # None: where standard error is no terminal
        bar = tqdm(loader, description, len(batches), initial=steps_done, unit="step", leave=False, disable=quiet)
        for loss in train_steps(net, bar, optimizer, scheduler, epoch, steps_done + 1):
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            steps_done += 1
            losses.append({"step": len(losses) + 1, "epoch": epoch, "size": size, "loss": round(loss, 6)})
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                save()
                saved = time.monotonic()
        if not all(weights.isfinite().all() for weights in model.parameters()):
            raise FloatingPointError(f"weights became infinite at the end of epoch {epoch}: try a lower --lr")

        if rank == 0:
            scores = score_pictures(model, sample, size, "selection cars")
            dice = mean(scores, "dice")
            train_loss = sum(row["loss"] for row in losses[-len(batches) :]) / len(batches)
            seconds = time.perf_counter() - start
            history.append(
                {
                    "epoch": epoch,
                    "size": size,
                    "batch_size": batch_size,
                    "train_loss": round(train_loss, 6),
                    "dice": round(dice, 6),
                    "jaccard": round(mean(scores, "jaccard"), 6),
                    "seconds": round(seconds, 2),
                }
            )
            print(f"{description}: train loss {train_loss:.4f}, selection Dice {dice:.4f}, {seconds:.0f} s", flush=True)
            # Only weights that were trained at the last size are candidates: it is the size that they will be used at.
            if size == last_size and dice > best:
                best = dice
                save_weights(out / "best.pth", model)
        else:
            history.append({})  # only rank 0 keeps a history; the others count their epochs
        steps_done = 0
        save()
        saved = time.monotonic()

    if rank == 0:
        report_on(settings, history, report, device, last_size, out)
        save(finished=True)


def report_on(
    settings: dict[str, Any],
    history: list[dict[str, Any]],
    report: list[Pair],
    device: torch.device,
    size: int,
    out: Path,
) -> None:
    """Writes the best weights as `model.pth`, and what they do on the report cars, which nothing was chosen on."""
    model = UNet(3, 1, settings["base_channels"])
    model.load_state_dict(torch.load(out / "best.pth", map_location="cpu", weights_only=True))
    save_weights(out / "model.pth", model, torch.float16)
    model = load_unet(out / "model.pth", device)
    scores = score_pictures(model, report, size, "report cars")
    write_history(out / "scores.csv", scores)
    panels = {
        "Loss": {"training": "train_loss"},
        "Selection cars": {"Dice": "dice", "Jaccard": "jaccard"},
    }
    plot_curves(out / "curves.png", history, panels)
    plot_worst(out / "worst.png", model, report, scores, size)
    print(
        f"Report cars: Dice {mean(scores, 'dice'):.4f}, Jaccard {mean(scores, 'jaccard'):.4f}, lowest Dice "
        f"{min(row['dice'] for row in scores):.4f} (photographs: {len(report)}, cars: {settings['val_cars']})"
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="Kaggle's folder, or imgs/ and masks/")
    parser.add_argument("--extra", type=Path, metavar="DIR", help="more pictures, laid out alike, only to train on")
    parser.add_argument("--model", metavar="FILE", help="weights to start from, such as model.pth; sets the width")
    parser.add_argument("--epochs", type=int, help=f"times through the training set (default: {EPOCHS})")
    parser.add_argument("--batch-size", type=int, help=f"photographs a step, on all devices (default: {BATCH_SIZE})")
    parser.add_argument("--size", type=int, help=f"short side of the pictures, in pixels (default: {SIZE})")
    parser.add_argument(
        "--stages", metavar="SIZE:EPOCHS[:BATCH],...", help="several sizes in turn, the small ones first"
    )
    parser.add_argument("--base-channels", type=int, help="width of the first level (default: 64, the coursework's)")
    parser.add_argument("--lr", type=float, help=f"highest learning rate (default: {DEFAULTS['lr']})")
    parser.add_argument("--val-cars", type=int, help="cars to select on, and as many to report on (default: 14)")
    parser.add_argument("--seed", type=int, help="first weights, split, order, variation (default: 0)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, settings included")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: runs/unet-DATE-TIME)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument(
        "--workers", type=int, help="processes that load photographs (default: none, on CUDA a core each, at most 8)"
    )
    return parser.parse_args()


def check_limit(description: str, value: float, name: str) -> None:
    """Raises ValueError, its message meant for the user, if the setting `name` is out of its range."""
    low, high = LIMITS[name]
    if not low <= value <= high:
        raise ValueError(f"{description} must be from {low} to {high}, not {value}")


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings on the command line, None for those not given; ValueError if one is out of its range."""
    for name in LIMITS:
        value = getattr(args, name.replace(" ", "_"))
        if value is not None:
            check_limit(f"--{name.replace(' ', '-')}", value, name)
    if args.stages is not None and (args.epochs or args.size):
        raise ValueError("--stages already says sizes and epochs: leave --size and --epochs out")
    if args.batch_size and args.stages and all(stage.count(":") == 2 for stage in args.stages.split(",")):
        raise ValueError("--stages already says every stage's batch: leave --batch-size out")
    stages = args.stages
    if stages is None and (args.size or args.epochs or args.batch_size):
        stages = f"{args.size or SIZE}:{args.epochs or EPOCHS}"
    if stages is not None:
        triples = parse_stages(stages, args.batch_size or BATCH_SIZE)
        stages = ",".join(":".join(map(str, triple)) for triple in triples)
    base_channels = args.base_channels
    begun = args.resume and args.out is not None and (args.out / "checkpoint.pth").exists()
    if args.model is not None and not begun:
        width = load_unet(args.model, torch.device("cpu")).down_conv1[0].out_channels
        if base_channels not in (None, width):
            raise ValueError(f"{args.model} has {width} base channels, not {base_channels}: leave --base-channels out")
        base_channels = width
    return {
        "model": args.model,
        "extra": args.extra and str(args.extra),
        "stages": stages,
        "base_channels": base_channels,
        "lr": args.lr,
        "val_cars": args.val_cars,
        "seed": args.seed,
    }


def default_workers(device: torch.device) -> int:
    """Processes that load photographs: reading and varying one at 576x864 takes a core longer than a GPU's step."""
    if device.type != "cuda":
        return 0  # there the network needs the cores
    return max(1, min(8, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def check_fit(settings: dict[str, Any], pairs: list[Pair], extra: list[Pair], ranks: int) -> None:
    """Raises ValueError if these photographs and this number of processes do not fit the settings."""
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


def begin(args: argparse.Namespace, device: torch.device, ranks: int) -> tuple[Path, dict[str, Any], Any]:
    """Checks all that was given, and opens the run: its folder, settings, and checkpoint, None where it has none yet.

    Ends the command, nothing written, if something is wrong.
    """
    try:
        given = given_settings(args)
        pairs = find_pairs(args.data)
        given["photographs"] = fingerprint(pairs)
        extra = []
        if args.extra is not None:
            extra = find_pairs(args.extra)
            given["extra_photographs"] = fingerprint(extra)
        if not args.resume:
            check_fit(settle(given, DEFAULTS, None), pairs, extra, ranks)  # before a folder is made
        out, settings, checkpoint = start_run(args.out, args.resume, SCRIPT, given, DEFAULTS, device)
        check_fit(settings, pairs, extra, ranks)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    return out, settings, checkpoint


def begin_together(rank: int, ranks: int, *arguments: Any) -> tuple[Path, dict[str, Any], Any]:
    """`begin(*arguments)` in the process of rank 0, its result in all. If it ends that one, all end."""
    outcome: list[Any] = [None]
    try:
        if rank == 0:
            outcome = [begin(*arguments)]
    except SystemExit as stop:
        outcome = [1 if stop.code else 0]
        raise
    finally:
        if ranks > 1:
            dist.broadcast_object_list(outcome)
    return outcome[0] if isinstance(outcome[0], tuple) else sys.exit(outcome[0])


def main() -> None:
    args = parse_arguments()
    # Set by torchrun. `local_rank` counts the processes of one machine, `rank` those of all.
    rank, local_rank = (int(os.environ.get(name, 0)) for name in ("RANK", "LOCAL_RANK"))
    ranks = int(os.environ.get("WORLD_SIZE", 1))
    try:
        device = pick_device(args.device)
        if ranks > 1:
            if device.type == "cuda":
                device = pick_device(f"cuda:{local_rank}")
                torch.cuda.set_device(device)
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        out, settings, checkpoint = begin_together(rank, ranks, args, device, ranks)
        pairs = find_pairs(args.data, check=rank > 0 and local_rank == 0)  # another machine has photographs of its own
        if fingerprint(pairs) != settings["photographs"]:
            raise ValueError(f"the photographs in {args.data} are not those of the first machine")
        training, selection, report = split_by_car(pairs, settings["val_cars"], settings["seed"])
        if settings["extra"] is not None:
            extra = find_pairs(Path(settings["extra"]), check=False)
            if fingerprint(extra) != settings["extra_photographs"]:
                raise ValueError(f"the pictures in {settings['extra']} are not those that the run began with")
            training += extra
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)  # there is nothing yet to go on with
    warnings.filterwarnings("once", message="This DataLoader will create")  # more workers than cores: said every epoch
    if rank == 0:
        print(
            f"Training on {len(training)} photographs, selecting on {len(selection)}, reporting on {len(report)}: "
            f"{how_split(pairs)}"
        )
        print(f"Using device {device}, writing to {out}", flush=True)
    try:
        with resumable(out) if rank == 0 else contextlib.nullcontext():
            workers = default_workers(device) if args.workers is None else args.workers
            train(settings, checkpoint, (training, selection, report), device, workers, out)
    except (KeyboardInterrupt, FloatingPointError):
        sys.exit(1)  # of another rank than 0, which says why
    except ValueError as error:  # a photograph that was whole when it was checked; a worker puts its traceback first
        sys.exit(f"error: {str(error).strip().splitlines()[-1].removeprefix('ValueError: ')}")
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate" in str(error):
            sys.exit("error: not enough memory: choose a smaller --batch-size, --size or --base-channels")
        raise
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
