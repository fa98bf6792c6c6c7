"""How the networks are trained: the cats and dogs tutorial's recipe, and one for few pictures.

The tutorial's: Adam at 0.0001, batches of 32, 10 epochs of pictures as they are, 224x224 (训练过程). Ours distorts and
mixes them, so that none is seen twice, and has many more epochs, most on small pictures, which cost less.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from labs.cats_dogs.pictures import CLASSES, normalize
from labs.resnet import NETWORKS

DEFAULTS = {"network": "small", "recipe": None, "stages": None, "val_percent": 0.2, "seed": 0, "quick": False}
STAGES = {"seed": "224:10:32", "ours": "96:140:32,128:140:32,160:25:32"}  # SIZE:EPOCHS:BATCH, as train_unet.py has them
LEARNING_RATE, WEIGHT_DECAY, SMOOTHING = 0.001, 0.05, 0.1  # ours
MIXING = 0.5  # the share of our batches that is mixed at the end


def whole_size(size: int, recipe: str) -> int:
    """The size of whole pictures for a network that is trained at `size`.

    Our cuts show an animal larger than its whole picture does. So that is made larger, and the animal has the same size
    in both (Touvron et al., "Fixing the train-test resolution discrepancy", 2019).
    """
    return size if recipe == "seed" else round(1.25 * size)


def begin_training(
    settings: dict[str, Any], steps: int, device: torch.device
) -> tuple[nn.Module, torch.optim.Optimizer, LRScheduler, dict[str, Any]]:
    """The network by chance, its optimizer, its learning rate over all `steps`, and what `train_steps` goes by."""
    torch.manual_seed(settings["seed"])
    network = NETWORKS[settings["network"]](len(CLASSES)).to(device, memory_format=torch.channels_last)
    if settings["recipe"] == "seed":
        optimizer = torch.optim.Adam(network.parameters(), lr=0.0001)
        way = {"loss_function": F.cross_entropy, "max_norm": float("inf")}
        return network, optimizer, ConstantLR(optimizer, factor=1), way
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    scheduler = OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.15, cycle_momentum=False)
    return network, optimizer, scheduler, {"loss_function": partial(F.cross_entropy, label_smoothing=SMOOTHING)}


def distort(
    images: Tensor, labels: Tensor, size: int, generator: torch.Generator, mixing: float
) -> tuple[Tensor, Tensor]:
    """Bytes [B, 3, H, W] and labels [B] as [B, 3, size, size] in [-1, 1], and probabilities of the classes [B, 2].

    Each picture is cut, turned, mirrored and recoloured by amounts of its own. With a chance of `mixing` the batch is
    then mixed with itself in another order: either blended (mixup, Zhang et al., 2018), or a square of each picture is
    put into another (CutMix, Yun et al., 2019), and the labels are mixed in the same proportion.
    """
    count = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    side, stretch = uniform(0.35, 1).sqrt(), uniform(-0.15, 0.15).exp()  # of the cut, 1 is the whole picture
    width, height = side * stretch, side / stretch
    shift_x, shift_y = uniform(-1, 1) * (1 - width).abs(), uniform(-1, 1) * (1 - height).abs()
    angle, mirror = uniform(-0.3, 0.3), uniform(-1, 1).sign()  # radians
    cos, sin = angle.cos(), angle.sin()
    rows = [cos * width * mirror, -sin * height, shift_x, sin * width * mirror, cos * height, shift_y]
    theta = torch.stack(rows, dim=1).view(count, 2, 3)
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    images = F.grid_sample(normalize(images), grid, padding_mode="reflection", align_corners=False)

    saturation, contrast, light = (uniform(0.6, 1.4).view(-1, 1, 1, 1) for _ in range(3))
    images = images.mean(dim=1, keepdim=True).lerp(images, saturation)
    images = images.mean(dim=(1, 2, 3), keepdim=True).lerp(images, contrast)
    images = ((images + 1) * light - 1).clamp(-1, 1)

    targets = F.one_hot(labels, len(CLASSES)).float()
    chance, blended, share = torch.rand(3, generator=generator).tolist()
    if chance >= mixing:
        return images, targets
    order = torch.randperm(count, generator=generator)
    if blended < 0.5:
        return images.lerp(images[order], share / 2), targets.lerp(targets[order], share / 2)
    side = round(size * share**0.5)
    top, left = torch.randint(size - side + 1, (2,), generator=generator).tolist()
    square = (..., slice(top, top + side), slice(left, left + side))
    images[square] = images[order][square]
    return images, targets.lerp(targets[order], side**2 / size**2)
