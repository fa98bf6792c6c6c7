"""How the two networks of the lab are trained: the CIFAR tutorial's recipe, and a fast one made of nine tricks.

The tutorial's: random crops out of a black frame of 4 pixels, mirroring, Adam at 0.0001, batches of 128, 20 epochs.
The fast one is cifar10-airbench's (K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, arXiv
2404.00498, section 3): its rates, its momentum, its smoothing. Its batches of 1,024, which keep a GPU busy, are 256
here, for a processor takes as long for a picture either way; and its ten epochs are sixteen, for our pictures have been
through JPEG.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR, LambdaLR, LRScheduler
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from labs.cifar10.networks import CifarCNN, FastCNN, Standardized
from labs.cifar10.pictures import Pictures, TimedBatches, checksum, mirror, vary
from report.tables import RESULTS, machine, write_json
from train_lenet import Batches, evaluate, train_epoch
from training import Run, epoch_generator, keep_memory

DEFAULTS = {"recipe": "fast", "without": "nothing", "seed": 0, "validate": False, "quick": False, "pictures": None}
QUICK_PICTURES = 120
TIMED_PICTURES, TIMED_ROUNDS = 2560, 5
RECIPES: dict[str, dict[str, Any]] = {
    "seed": {"epochs": 20, "batch_size": 128},
    "fast": {"epochs": 16, "batch_size": 256, "widths": (64, 256, 256)},
    "ladder": {"epochs": 5, "batch_size": 256, "widths": (32, 128, 128)},  # eleven trainings of it can be afforded
}
TRICKS = ("whitening", "identity", "smoothing", "shifts", "alternation")
TRICKS += ("triangle", "bias rate", "averaging", "small batches")
# For 1,024 pictures a step; both grow with the batch, so that an epoch goes equally far.
LR, WEIGHT_DECAY, MOMENTUM = 1.5, 0.002, 0.85
BIAS_RATE = 64  # BatchNorm's biases learn that many times as fast
WHITENED_PICTURES, BIAS_EPOCHS = 5000, 3  # the whitening layer's bias learns only in the first epochs
LOOKAHEAD_PICTURES = 5 * 1024  # between two averagings


def recipe_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Epochs, batch size, widths if the network is the fast one, and the set of tricks."""
    recipe = dict(RECIPES[settings["recipe"]])
    left_out = TRICKS if "widths" not in recipe or settings["without"] == "all" else (settings["without"],)
    if "widths" in recipe and "small batches" in left_out:
        recipe["batch_size"] = 1024
    if settings["quick"]:
        recipe |= {"epochs": 2, "batch_size": 32}
    return {**recipe, "tricks": set(TRICKS) - set(left_out)}


def make_network(recipe: dict[str, Any], pictures: Tensor) -> nn.Sequential:
    """The network as it is before its first step; `pictures` are bytes `[N, 3, 32, 32]`."""
    network = Standardized(FastCNN(recipe["widths"]) if "widths" in recipe else CifarCNN())
    network.standardize.measure(pictures)
    if "identity" in recipe["tricks"]:
        network.network.begin_as_identity()
    if "whitening" in recipe["tricks"]:
        network.network.whiten(network.standardize(pictures[:WHITENED_PICTURES] / 255))
    return network


def make_optimizer(recipe: dict[str, Any], network: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
    if "widths" not in recipe:
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
        return optimizer, ConstantLR(optimizer, factor=1)
    share = recipe["batch_size"] / 1024
    groups = []
    for normalizing in (True, False):
        lr = LR * share * (BIAS_RATE if normalizing and "bias rate" in recipe["tricks"] else 1)
        named = ((".norm" in name, weight) for name, weight in network.named_parameters() if weight.requires_grad)
        weights = [weight for of_norm, weight in named if of_norm == normalizing]
        groups.append({"params": weights, "lr": lr, "weight_decay": WEIGHT_DECAY * share / lr})  # equal for both
    optimizer = torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True)

    def triangle(step: int) -> float:
        """From 0.2 to 1 in the first 23% of the steps, then down to 0.07."""
        return min(0.2 + 0.8 * step / (0.23 * steps), 0.07 + 0.93 * (steps - step) / (0.77 * steps))

    mean = 0.23 * (0.2 + 1) / 2 + 0.77 * (1 + 0.07) / 2  # so that without the triangle a training goes equally far
    return optimizer, LambdaLR(optimizer, triangle if "triangle" in recipe["tricks"] else lambda step: mean)


def look_ahead(
    optimizer: torch.optim.Optimizer, scheduler: LRScheduler, network: nn.Module, every: int, steps: int
) -> AveragedModel:
    """Makes the network go back, `every` so many steps, to a running average of itself.

    The past weighs the more in it, the nearer the end of all `steps` is. After the last step the network is the average
    as it was: what has been learned since its last turn is left out.

    M. Zhang et al., "Lookahead optimizer: k steps forward, 1 step back", 2019. Returns the average, to be kept.
    """

    def lerp(old: Tensor, new: Tensor, _count: Tensor) -> Tensor:
        kept = 0.95**5 * ((scheduler.last_epoch + 1) / steps) ** 3
        return torch.lerp(old, new, 1 - kept) if old.is_floating_point() else new

    average = AveragedModel(network, avg_fn=lerp, use_buffers=True)

    @torch.no_grad()
    def after_step(*_: object) -> None:
        step = scheduler.last_epoch + 1  # the scheduler counts it after the optimizer
        if step % every == 0:
            average.update_parameters(network)
        if step % every == 0 or step == steps:
            network.load_state_dict(average.module.state_dict())

    optimizer.register_step_post_hook(after_step)
    return average


def sides(recipe: dict[str, Any], pictures: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The bytes `[N, 3, 32, 32]` of even epochs and of odd ones: what is mirrored in one is not in the other."""
    if "alternation" not in recipe["tricks"]:
        return pictures, pictures
    mirrored = (torch.rand(len(pictures), generator=epoch_generator(seed, 0)) < 0.5).to(pictures.device)
    return mirror(pictures, mirrored), mirror(pictures, ~mirrored)


def variation(recipe: dict[str, Any]) -> Callable[[Tensor, torch.Generator], Tensor]:
    """What becomes of a batch of bytes `[B, 3, 32, 32]` before a step: values in [0, 1] of the same shape."""
    mirrored = "alternation" not in recipe["tricks"]
    if "widths" not in recipe:
        return partial(vary, limit=4, mode="constant", mirrored=mirrored)
    return partial(vary, limit=2 if "shifts" in recipe["tricks"] else 0, mode="reflect", mirrored=mirrored)


def first_epochs(settings: dict[str, Any], pictures: Tensor) -> list[Tensor]:
    """Bytes `[N, 3, 32, 32]` as values in [0, 1]: as they are, and as a training's first four epochs show them."""
    recipe, seed = recipe_of(settings), settings["seed"]
    even_and_odd, change = sides(recipe, pictures, seed), variation(recipe)
    varied = [change(even_and_odd[epoch % 2], epoch_generator(seed, epoch)) for epoch in range(1, 5)]
    return [pictures / 255, *varied]


def loss(recipe: dict[str, Any]) -> Callable[[Tensor, Tensor], Tensor]:
    return partial(F.cross_entropy, label_smoothing=0.2 if "smoothing" in recipe["tricks"] else 0.0)


def keep_back(training: Pictures) -> tuple[Pictures, Pictures]:
    """Pictures to learn, and the last tenth to choose by: 5,000 of CIFAR-10's."""
    pictures, labels = training
    count = len(labels) - len(labels) // 10
    return (pictures[:count], labels[:count]), (pictures[count:], labels[count:])


def train(run: Run, training: Pictures, testing: Pictures, device: torch.device) -> nn.Sequential:
    """Trains from the first epoch, or from the one after the run's checkpoint; the run's history says how it went."""
    seed, recipe = run.settings["seed"], recipe_of(run.settings)
    epochs, batch_size, tricks = recipe["epochs"], recipe["batch_size"], recipe["tricks"]
    test_name = "validation" if run.settings["validate"] else "test"
    had, run.settings["pictures"] = run.settings["pictures"], checksum(training)
    if had not in (None, run.settings["pictures"]):
        sys.exit(f"error: {run.out} was begun with other pictures ({had}): use those, or remove it")
    pictures, labels = (tensor.to(device) for tensor in training)
    count = len(testing[1])  # of the training pictures, too, so that the two answers are equally sure
    learned, kept_back = (
        Batches(of[0][:count].to(device) / 255, of[1][:count].to(device), batch_size=500) for of in (training, testing)
    )

    torch.manual_seed(seed)
    network = make_network(recipe, training[0]).to(device)
    steps = epochs * -(-len(labels) // batch_size)
    optimizer, scheduler = make_optimizer(recipe, network, steps)
    parts = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
    if "averaging" in tricks:
        every = max(1, min(LOOKAHEAD_PICTURES, len(labels)) // batch_size)
        parts["average"] = look_ahead(optimizer, scheduler, network, every, steps)
    run.restore(**parts)
    even_and_odd = sides(recipe, pictures, seed)

    for epoch in run.epochs(epochs):
        if "whitening" in tricks:
            network.network.first.bias.requires_grad_(epoch <= BIAS_EPOCHS)
        generator = epoch_generator(seed, epoch)
        batches = TimedBatches(even_and_odd[epoch % 2], labels, batch_size, generator, variation(recipe))
        began = time.perf_counter()
        train_loss, train_accuracy = train_epoch(network, batches, loss(recipe), optimizer, scheduler, epoch)
        seconds = time.perf_counter() - began
        row = {"train_loss": train_loss, "train_accuracy": train_accuracy}
        for name, batches_of in (("learned", learned), (test_name, kept_back)):
            row[f"{name}_loss"], row[f"{name}_accuracy"] = evaluate(network, batches_of, F.cross_entropy)
        row = run.record({**row, "step_seconds": seconds / len(batches), "data_share": batches.seconds / seconds})
        print(
            f"epoch {epoch}/{epochs}: train loss {train_loss:.4f}, train accuracy {train_accuracy:.2%}, "
            f"as they are {row['learned_accuracy']:.2%}, {test_name} accuracy {row[f'{test_name}_accuracy']:.2%}, "
            f"{row['seconds']:.0f} s",
            flush=True,
        )
    return network


def speed(pictures: Tensor, labels: Tensor) -> None:
    """CPU seconds that all steps of a training take in either way, on one thread: some of them, by turns."""
    torch.set_num_threads(1)
    keep_memory()
    work, seconds = {}, {}
    for name in ("seed", "fast"):
        recipe = recipe_of({**DEFAULTS, "recipe": name})
        network = make_network(recipe, pictures)
        optimizer, scheduler = make_optimizer(recipe, network, steps=10**4)
        batches = Batches(pictures, labels, recipe["batch_size"], epoch_generator(0, 1), variation(recipe))
        work[name] = partial(train_epoch, network, batches, loss(recipe), optimizer, scheduler)
        seconds[name] = []
    for _ in tqdm(range(TIMED_ROUNDS), "rounds", leave=False, disable=None):
        for name, some_steps in work.items():
            began = time.process_time()
            some_steps()
            seconds[name].append(time.process_time() - began)
    all_steps = {name: RECIPES[name]["epochs"] * 50_000 / len(labels) for name in work}
    result = {name: median(seconds[name]) * all_steps[name] for name in work}
    result["ratio"] = result["fast"] / result["seed"]
    print(f"CPU seconds: seed {result['seed']:.0f}, fast {result['fast']:.0f}, {result['ratio']:.2f} times as many")
    write_json(RESULTS / "labs" / "cifar10_speed.json", {**result, "machine": machine()})


@torch.inference_mode()
def score(network: nn.Module, pictures: Tensor) -> dict[str, Tensor]:
    """The logits `[N, 10]` of pictures (bytes) as they are; with their mirror images'; and with shifted copies' too.

    A copy is shifted by a pixel up and left, or down and right, and counts half as much as the picture in its place.
    """
    network.eval()
    device = next(network.parameters()).device
    scores: dict[str, list[Tensor]] = {"plain": [], "mirrored": [], "copies": []}
    for batch in tqdm(pictures.split(500), "looking", leave=False, disable=None):  # minutes for all test pictures
        padded = F.pad(batch.to(device) / 255, (1, 1, 1, 1), mode="reflect")
        views = [padded[:, :, at : at + 32, at : at + 32] for at in (1, 0, 2)]
        plain, *shifted = [network(view) for view in views]
        mirrored, *shifted_back = [network(view.flip(3)) for view in views]
        both = (plain + mirrored) / 2
        copies = both / 2 + sum(shifted + shifted_back) / 8
        for name, logits in (("plain", plain), ("mirrored", both), ("copies", copies)):
            scores[name].append(logits.cpu())
    return {name: torch.cat(logits) for name, logits in scores.items()}
