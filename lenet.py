"""LeNet-5 twice: as it is drawn today, and as LeCun, Bottou, Bengio and Haffner described it in 1998.

    python lenet.py        prints both networks with the number of parameters of each layer

Source: Y. LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998, section
II.B and figure 2. The names C1, S2, C3, S4, C5, F6 are the paper's: C a convolution, S a subsampling, F a full
connection.

What the paper leaves open, and what `LeNet5Original` does:

- Subsampling. "The four inputs are added, multiplied by a trainable coefficient, and added to a trainable bias": so is
  it here, a sum and not a mean. Coefficient and bias are drawn as the weights are, with a fan-in of 4.
- Where the squashing stands. After every layer from C1 to F6, subsampling included ("the result is passed through a
  sigmoidal function"), and nowhere else.
- The biases' first values. They are drawn with the weights of their unit, from the same range.
- The fan-in of C3's units. It is 25 times the 3, 4 or 6 maps that a unit really sees, not 150 for all.
- C5. "A convolutional layer with 120 feature maps" whose kernels cover all of S4: a Conv2d with 1x1 output.
- The codes of the output units. Figure 3 shows them small; see `CODES`.
- The constant j of the criterion (equation 9). The paper says only that it is positive; here it is 10, chosen on digits
  kept back from the training (report/README.md tells what other values do).
- Training. The paper's stochastic diagonal Levenberg-Marquardt is not used: both networks share one training loop.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The 7x12 codes of the output units 0 to 9 (figure 3), side by side; "#" is +1 and "." is -1. This is the
# transcription that public re-implementations share; its bars above 0, 2, 4 and 5 could not be checked against the
# printed figure. The codes are fixed, distinct and far apart, which is what the network needs of them.
CODES = """
.#####. ...##.. .#####. ####### .#####. .#####. ..####. ####### .#####. .#####.
....... ..###.. ....... .....## ....... ....... .##.... .....## ##...## ##..###
..###.. .####.. .#####. ....##. ....... ####### ##..... .....## ##...## ##...##
.##.##. ...##.. ##...## ...##.. .##..## ##..... ##..... ....##. ##...## ##...##
##...## ...##.. #....## ..####. .##..## ##..... ######. ...##.. .#####. ##..###
##...## ...##.. ....##. .....## ###..## .####.. ###..## ...##.. ##...## .######
##...## ...##.. ..###.. .....## ##...## ..####. ##...## ..##... ##...## .....##
##...## ...##.. .##.... .....## ##...## .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ##..### ##...## ###..## ..##... ##...## ....##.
..###.. .###### ####### .#####. .###### .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
....... ....... ....... ....... .....## ....... ....... ....... ....... .......
"""

# Which maps of S2 each map of C3 sees (table I), C3's maps 0 to 15 in order.
TABLE_I = (
    "012 123 234 345 045 015 "  # the first six see three neighbouring maps
    "0123 1234 2345 0345 0145 0125 "  # the next six see four neighbouring maps
    "0134 1245 0235 "  # the next three see four maps that do not all touch
    "012345"  # the last one sees them all
).split()


def count_parameters(module: nn.Module) -> int:
    """The number of trainable numbers in `module`."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


class LeNet5(nn.Module):
    """LeNet-5 as it is taught today: ReLU, max-pooling, all of S2's maps connected to C3, a linear output.

    With ten classes it has 61,706 parameters. Takes images `[B, 1, 28, 28]` with values in [0, 1], 0 the background;
    returns logits `[B, num_classes]`. Its numbers of maps and units may be changed.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.C1 = nn.Conv2d(1, 6, kernel_size=5, padding=2)
        self.S2 = nn.MaxPool2d(2)
        self.C3 = nn.Conv2d(6, 16, kernel_size=5)
        self.S4 = nn.MaxPool2d(2)
        self.C5 = nn.Linear(16 * 5 * 5, 120)  # the same as a 5x5 convolution over the whole of S4, but faster
        self.F6 = nn.Linear(120, 84)
        self.output = nn.Linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = (images - 0.1307) / 0.3081  # mean and standard deviation of MNIST's training pixels
        # The larger of two ReLUs is the ReLU of the larger: pooling first leaves it a quarter of the work.
        x = F.relu(self.S2(self.C1(x)))  # [B, 6, 14, 14]
        x = F.relu(self.S4(self.C3(x)))  # [B, 16, 5, 5]
        x = F.relu(self.C5(x.flatten(1)))  # [B, 120]
        x = F.relu(self.F6(x))  # [B, 84]
        return self.output(x)


def squash(x: Tensor) -> Tensor:
    """The paper's scaled hyperbolic tangent (equation 6 and appendix A): f(1) = 1 and f(-1) = -1."""
    return 1.7159 * torch.tanh(2 / 3 * x)


def draw_uniform(parameter: Tensor, fan_in: int) -> None:
    """Draws first values from [-2.4/fan_in, 2.4/fan_in] (appendix A); `fan_in` counts a unit's inputs."""
    nn.init.uniform_(parameter, -2.4 / fan_in, 2.4 / fan_in)


class Subsampling(nn.Module):
    """S2 and S4: the sum of each 2x2 square, times one trainable coefficient a map, plus one bias a map.

    Takes `[B, C, H, W]`, returns `[B, C, H/2, W/2]`, not yet squashed.
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.empty(maps, 1, 1))
        self.bias = nn.Parameter(torch.empty(maps, 1, 1))
        for parameter in self.parameters():
            draw_uniform(parameter, fan_in=4)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2, divisor_override=1) * self.coefficient + self.bias


class PartialConv2d(nn.Module):
    """C3: a 5x5 convolution in which each of the 16 maps sees only the maps of S2 that table I gives it.

    Takes `[B, 6, 14, 14]`, returns `[B, 16, 10, 10]`. Only the 60 kernels that exist are parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        pairs = [(c3_map, int(s2_map)) for c3_map, seen in enumerate(TABLE_I) for s2_map in seen]
        self.register_buffer("pairs", torch.tensor(pairs).T.contiguous(), persistent=False)
        self.kernels = nn.Parameter(torch.empty(len(pairs), 5, 5))
        self.bias = nn.Parameter(torch.empty(len(TABLE_I)))
        with torch.no_grad():
            for kernel, (c3_map, _) in zip(self.kernels, pairs, strict=True):
                draw_uniform(kernel, fan_in=25 * len(TABLE_I[c3_map]))
            for c3_map, seen in enumerate(TABLE_I):
                draw_uniform(self.bias[c3_map], fan_in=25 * len(seen))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.kernels.new_zeros(16, 6, 5, 5)
        weight[self.pairs[0], self.pairs[1]] = self.kernels
        return F.conv2d(x, weight, self.bias)


class LeNet5Original(nn.Module):
    """LeNet-5 of 1998, with the paper's exactly 60,000 trainable parameters.

    Takes images `[B, 1, 28, 28]` with values in [0, 1], 0 the background; returns scores `[B, 10]`: the squared
    distances of F6's output from the ten codes, negated, so that the largest wins.
    """

    def __init__(self) -> None:
        super().__init__()
        self.C1 = nn.Conv2d(1, 6, kernel_size=5)
        self.S2 = Subsampling(6)
        self.C3 = PartialConv2d()
        self.S4 = Subsampling(16)
        self.C5 = nn.Conv2d(16, 120, kernel_size=5)
        self.F6 = nn.Linear(120, 84)
        for layer, fan_in in [(self.C1, 25), (self.C5, 400), (self.F6, 120)]:
            for parameter in layer.parameters():
                draw_uniform(parameter, fan_in)
        rows = [row.split() for row in CODES.split("\n")[1:-1]]
        codes = ["".join(row[digit] for row in rows) for digit in range(10)]
        codes = torch.tensor([[1.0 if dot == "#" else -1.0 for dot in code] for code in codes])
        self.register_buffer("codes", codes, persistent=False)  # [10, 84]

        counts = {"C1": 156, "S2": 12, "C3": 1516, "S4": 32, "C5": 48120, "F6": 10164}
        for name, expected in counts.items():
            assert count_parameters(getattr(self, name)) == expected
        assert count_parameters(self) == 60_000

    def forward(self, images: Tensor) -> Tensor:
        x = F.pad(images, (2, 2, 2, 2)) * 1.275 - 0.1  # [B, 1, 32, 32], background -0.1, foreground 1.175
        x = squash(self.C1(x))  # [B, 6, 28, 28]
        x = squash(self.S2(x))  # [B, 6, 14, 14]
        x = squash(self.C3(x))  # [B, 16, 10, 10]
        x = squash(self.S4(x))  # [B, 16, 5, 5]
        x = squash(self.C5(x)).flatten(1)  # [B, 120]
        x = squash(self.F6(x))  # [B, 84]
        return -(x.unsqueeze(1) - self.codes).square().sum(dim=2)


def original_loss(scores: Tensor, labels: Tensor, j: float = 10.0) -> Tensor:
    """The paper's criterion (equation 9), the mean over the batch of  y_label + log(exp(-j) + sum over i of exp(-y_i)).

    `scores` `[B, 10]` are the negated distances -y, `labels` `[B]` the digits. The first term draws F6's output towards
    the code of the right digit; the second pushes it away from the others, but hardly from those farther away than j.
    The codes are at least 48 apart: a j near 0 all but switches the second term off.
    """
    floor = scores.new_full((len(scores), 1), -j)
    return (torch.logsumexp(torch.cat([scores, floor], dim=1), dim=1) - scores.gather(1, labels[:, None])[:, 0]).mean()


def main() -> None:
    for model in (LeNet5(), LeNet5Original()):
        print(model)
        for name, layer in model.named_children():
            print(f"  {name:<8} {count_parameters(layer):>6,} parameters")
        print(f"  {'in all':<8} {count_parameters(model):>6,} parameters\n")


if __name__ == "__main__":
    main()
