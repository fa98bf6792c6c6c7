"""The experiments `best_trials` and `best`: the most that LeNet-5's layout and 61,706 parameters reach.

    python -m report.experiments best_trials    what helps, in short trainings
    python -m report.experiments best           five long ones, and labs/weights/lenet.pth

What is trained has help that is gone in the end: normalization without parameters of its own, which is folded into the
layers before it, and an average of the weights that follows the training. What is left is a plain `LeNet5`.
"""

import argparse
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lenet import LeNet5
from report.lenet_experiments import ROOT, Row, Trainings, accuracy, outcome, train_network
from train_lenet import load_mnist, random_affine
from training import save_weights

WEIGHTS = ROOT / "labs" / "weights" / "lenet.pth"
TRIAL_EPOCHS, EPOCHS = 15, 100
AVERAGED_STEPS = 500  # how far back the average of the weights reaches


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


def averaged() -> nn.Module:
    return Averaged(NormalizedLeNet5())


def recipe(epochs: int) -> dict[str, Any]:
    """What `train_network` is given: the recipe of `train_lenet.py` with the three helps that the trials chose."""
    return {"make": averaged, "loss_function": smooth_cross_entropy, "epochs": epochs}


TRIALS: dict[str, dict[str, Any]] = {
    "today's recipe": {},
    "normalized": {"make": NormalizedLeNet5},
    "normalized, averaged": {"make": averaged},
    "normalized, averaged, smoothed": recipe(TRIAL_EPOCHS),
    "normalized, averaged, rate 0.004": {"make": averaged, "lr": 0.004},
    "normalized, averaged, rate 0.03": {"make": averaged, "lr": 0.03},
    "normalized, averaged, distortions 1.5 times as strong": {
        "make": averaged,
        "augment": partial(random_affine, strength=1.5),
    },
}


def trials(args: argparse.Namespace, rows: list[dict[str, str]]) -> Trainings:
    """One lever after the other, in short trainings, compared on the validation digits.

    Expected: normalization gives most, for it lets every layer learn at its own pace; averaging and smoothing a little.
    """
    for trial, training in TRIALS.items():
        for seed in range(min(2, args.seeds)):
            settings = {"recipe": trial, "seed": seed}
            yield settings, partial(outcome, "best_trials", settings, **{"epochs": TRIAL_EPOCHS, **training})


def best(args: argparse.Namespace, rows: list[dict[str, str]]) -> Trainings:
    """The recipe that the trials chose, long, on all 60,000 digits. Expected: at least 99.60% of the test digits."""

    def train(settings: Row) -> Row:
        digits = load_mnist(ROOT / "data", train=True)
        model, _, seconds = train_network("best", settings, digits=digits, **recipe(EPOCHS))
        plain = model.average.module.eval().folded()
        if settings["seed"] == 0:
            save_weights(WEIGHTS, plain)
        return {"test_accuracy": accuracy(plain, "test"), "seconds": round(seconds, 1)}

    for seed in range(args.seeds):
        settings = {"epochs": EPOCHS, "seed": seed}
        yield settings, partial(train, settings)
