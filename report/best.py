"""The experiments `best_trials` and `best`: the most that LeNet-5's layout and 61,706 parameters reach.

    python -m report.experiments best_trials    what helps, in short trainings
    python -m report.experiments best           five long ones, five that these teach, and labs/weights/lenet.pth

What is trained has help that is gone in the end: normalization without parameters of its own, which is folded into the
layers before it, an average of the weights that follows the training, and teachers. What is left is a plain `LeNet5`.
"""

import argparse
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lenet import LeNet5
from report.lenet_experiments import ROOT, Row, Trainings, accuracy, train_network
from train_lenet import Batches, evaluate, load_mnist, random_affine, random_maps
from training import epoch_generator, save_weights

WEIGHTS = ROOT / "labs" / "weights" / "lenet.pth"
EPOCHS, TRIAL_EPOCHS, FOLDS = 120, 40, 3
AVERAGED_STEPS = 500  # how far back the average of the weights reaches
PULL = 3  # of `bend`, in pixels: the longest of its random vectors
COPIES = 12  # of every digit, in a committee's lesson

Digits = tuple[Tensor, Tensor]


class NormalizedLeNet5(LeNet5):
    """LeNet-5 whose maps and units have mean 0 and deviation 1 over the batch before their bias is added.

    S. Ioffe, C. Szegedy, "Batch normalization", 2015, without its scale and shift: scales are left to the next layer,
    and the layer's own bias is the shift. Max-pooling stands before it, which leaves it a quarter of the work.
    """

    def __init__(self) -> None:
        super().__init__()
        self.N1, self.N3 = (nn.BatchNorm2d(maps, affine=False) for maps in (6, 16))
        self.N5, self.N6 = (nn.BatchNorm1d(units, affine=False) for units in (120, 84))

    def forward(self, images: Tensor) -> Tensor:
        x = (images - 0.1307) / 0.3081
        x = self.N1(self.S2(F.conv2d(x, self.C1.weight, padding=2)))
        x = F.relu(x + self.C1.bias.view(-1, 1, 1))  # [B, 6, 14, 14]
        x = self.N3(self.S4(F.conv2d(x, self.C3.weight)))
        x = F.relu(x + self.C3.bias.view(-1, 1, 1))  # [B, 16, 5, 5]
        x = F.relu(self.N5(F.linear(x.flatten(1), self.C5.weight)) + self.C5.bias)  # [B, 120]
        x = F.relu(self.N6(F.linear(x, self.F6.weight)) + self.F6.bias)  # [B, 84]
        return self.output(x)

    @torch.no_grad()
    def folded(self) -> LeNet5:
        """The `LeNet5` that gives the same scores: (wx - mean) / deviation + bias is another weight and bias."""
        plain = LeNet5()
        plain.load_state_dict(self.state_dict(), strict=False)
        for layer, norm in ((plain.C1, self.N1), (plain.C3, self.N3), (plain.C5, self.N5), (plain.F6, self.N6)):
            deviation = (norm.running_var + norm.eps).sqrt()
            layer.weight /= deviation.view(-1, *[1] * (layer.weight.dim() - 1))
            layer.bias -= norm.running_mean / deviation
        return plain


class Averaged(nn.Module):
    """A network and the running average of its weights: the network learns, the average is what is evaluated.

    B. Polyak, A. Juditsky, "Acceleration of stochastic approximation by averaging", 1992; here exponential.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        decay = get_ema_multi_avg_fn(1 - 1 / AVERAGED_STEPS)
        self.average = AveragedModel(network, multi_avg_fn=decay, use_buffers=True)

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return self.average(images)
        self.average.update_parameters(self.network)  # as the step before left it
        return self.network(images)


def smooth_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with a tenth of the target shared out among all ten digits (C. Szegedy et al., 2015, section 7)."""
    return F.cross_entropy(scores, labels, label_smoothing=0.1)


def bend(images: Tensor, generator: torch.Generator, strength: float = 1.5) -> Tensor:
    """Distorts `images` [B, 1, 28, 28] half as strongly again as `train_lenet.py` does, and moves every pixel besides.

    P. Simard and others, 2003: each pixel goes its own way, though nearly as its neighbours do. Here that is a smooth
    mean of random vectors at places four pixels apart, which moves it by half a pixel.
    """
    maps = random_maps(len(images), generator, strength)
    pixels, places = torch.arange(28.0), torch.arange(1.5, 28, 4)
    weights = torch.exp(-((pixels[:, None] - places) ** 2) / (2 * 4**2))
    weights /= weights.sum(dim=1, keepdim=True)  # [28, 7]
    moves = (2 * torch.rand(len(images), 2, 7, 7, generator=generator) - 1) * PULL / 14  # 1 is half the picture
    moves = (weights @ moves @ weights.T).permute(0, 2, 3, 1)  # [B, 28, 28, 2]
    grid = F.affine_grid(maps, list(images.shape), align_corners=False) + moves
    return F.grid_sample(images, grid, align_corners=False)


def averaged() -> nn.Module:
    return Averaged(NormalizedLeNet5())


def slightly_bent(images: Tensor, generator: torch.Generator) -> Tensor:
    return bend(images, generator, strength=1)


HELP = {"make": averaged, "loss_function": smooth_cross_entropy}
TRIALS: dict[str, dict[str, Any]] = {
    "today's recipe": {},
    "normalized": {"make": NormalizedLeNet5},
    "normalized, averaged": {"make": averaged},
    "normalized, averaged, smoothed": HELP,
    "all three, bent": {**HELP, "augment": slightly_bent},
    "all three, distortions half as strong again": {**HELP, "augment": partial(random_affine, strength=1.5)},
    "all three, both": {**HELP, "augment": bend},
    "all three, rate 0.004": {**HELP, "lr": 0.004},
    "all three, rate 0.03": {**HELP, "lr": 0.03},
}


@cache
def fold(number: int) -> tuple[Digits, Digits]:
    """Two thirds of the 60,000 training digits to learn, and the third `number` to be tested on."""
    images, labels = load_mnist(ROOT / "data", train=True)
    held = torch.arange(len(labels)) % FOLDS == number
    return (images[~held], labels[~held]), (images[held], labels[held])


def trials(args: argparse.Namespace, rows: list[dict[str, str]]) -> Trainings:
    """One lever after the other, by cross-validation: each is tested on all 60,000 training digits, a third at a time.

    5,000 digits cannot tell such recipes apart: the standard error of one accuracy would be a tenth of a point.
    Expected: normalization gives most, for it lets every layer learn at its own pace; averaging and smoothing a little;
    stronger distortions nothing at this length, for they need time.
    """

    def train(settings: Row, **training: Any) -> Row:
        digits, held = fold(settings["fold"])
        model, _, seconds = train_network(
            "best_trials", settings, digits=digits, **{"epochs": TRIAL_EPOCHS, **training}
        )
        right = evaluate(model, Batches(*held, batch_size=1000), F.cross_entropy)[1]
        return {"validation_accuracy": round(right, 6), "seconds": round(seconds, 1)}

    for trial, training in TRIALS.items():
        for number in range(FOLDS):
            settings = {"recipe": trial, "seed": 0, "fold": number}
            yield settings, partial(train, settings, **training)


def learned_alone(seed: int) -> tuple[LeNet5, float]:
    """A network that learned all 60,000 digits for long, bent anew each time; and the seconds that it took."""
    digits = load_mnist(ROOT / "data", train=True)
    settings = {"recipe": "alone", "epochs": EPOCHS, "seed": seed}
    recipe = {"make": averaged, "loss_function": smooth_cross_entropy, "augment": bend, "epochs": EPOCHS}
    model, _, seconds = train_network("best", settings, digits=digits, **recipe)
    return model.average.module.eval().folded(), seconds


@cache
def lesson(teachers: int) -> tuple[Tensor, Tensor]:
    """Bent copies of all digits, uint8 [N, 1, 28, 28], and the teachers' mean probabilities [N, 10] for them.

    G. Hinton and others, "Distilling the knowledge in a neural network", 2015. Asking the teachers in every step would
    more than double its time.
    """
    images, _ = load_mnist(ROOT / "data", train=True)
    committee = [learned_alone(seed)[0].to(memory_format=torch.channels_last) for seed in range(teachers)]
    copies, answers = [], []
    for copy in range(1, COPIES + 1):
        generator = epoch_generator(teachers, copy)
        for batch in images.split(250):
            bent = (255 * bend(batch, generator)).round()
            copies.append(bent.to(torch.uint8))
            seen = (bent / 255).contiguous(memory_format=torch.channels_last)
            with torch.no_grad():
                answers.append(torch.stack([model(seen).softmax(dim=1) for model in committee]).mean(dim=0))
    return torch.cat(copies), torch.cat(answers)


def learned_from(teachers: int, seed: int) -> tuple[LeNet5, float]:
    """A network that learned what the committee thinks of bent digits, in as many steps; and its seconds."""
    settings = {"recipe": "taught", "epochs": EPOCHS, "seed": seed}
    recipe = {"make": averaged, "augment": lambda images, generator: images / 255, "epochs": EPOCHS // COPIES}
    model, _, seconds = train_network("best", settings, digits=lesson(teachers), **recipe)
    return model.average.module.eval().folded(), seconds


def best(args: argparse.Namespace, rows: list[dict[str, str]]) -> Trainings:
    """The recipe that the trials chose, long, on all 60,000 digits; and once more, taught by all that learned alone.

    Expected: the taught ones read at least 99.60% of the test digits, those that learned alone a little fewer.
    """

    def train(settings: Row) -> Row:
        taught, seed = settings["recipe"] == "taught", settings["seed"]
        plain, seconds = learned_from(args.seeds, seed) if taught else learned_alone(seed)
        if taught and seed == 0:
            save_weights(WEIGHTS, plain)
        return {"test_accuracy": accuracy(plain, "test"), "seconds": round(seconds, 1)}

    for recipe in ("alone", "taught"):
        for seed in range(args.seeds):
            settings = {"recipe": recipe, "epochs": EPOCHS, "seed": seed}
            yield settings, partial(train, settings)
