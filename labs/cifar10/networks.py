"""Two networks for CIFAR-10: the CIFAR tutorial's, and a fast one with what makes it so before the first step.

Both take pictures that `Standardize` has prepared. Sources: its "Building a CNN-Classifier for CIFAR-10 with
PyTorch"; K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024 (arXiv 2404.00498), sections 3.1 to 3.4.
"""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lenet import count_parameters
from train_unet import has_bfloat16


class Standardize(nn.Module):
    """Pictures `[B, 3, H, W]` in [0, 1] -> the same with mean 0 and deviation 1 in each colour over a training set.

    A layer, so that the two times three numbers, which `measure` computes, travel with the weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.register_buffer("deviation", torch.ones(3, 1, 1))

    def measure(self, pictures: Tensor) -> None:
        """`pictures` `[N, 3, H, W]` are bytes."""
        deviation, mean = torch.std_mean(pictures / 255, dim=(0, 2, 3))
        self.mean.copy_(mean.view(3, 1, 1))
        self.deviation.copy_(deviation.view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


def megabytes(network: nn.Module) -> float:
    """The size of all parameters and buffers, 1024 * 1024 bytes each, as the tutorial counts it."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1024**2


class CifarCNN(nn.Module):
    """The tutorial's network: standardized pictures `[B, 3, 32, 32]` -> logits `[B, 10]`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_layer = nn.Sequential(
            *self.block(3, 32, 64),  # [B, 64, 16, 16]
            *self.block(64, 128, 128),  # [B, 128, 8, 8]
            nn.Dropout2d(p=0.05),
            *self.block(128, 256, 256),  # [B, 256, 4, 4]
        )
        self.fc_layer = nn.Sequential(
            nn.Dropout(p=0.1),
            nn.Linear(4096, 1024),
            nn.ReLU(inplace=True),
            nn.Linear(1024, 512),
            nn.ReLU(inplace=True),
            nn.Dropout(p=0.1),
            nn.Linear(512, 10),
        )
        assert count_parameters(self) == 5_852_170
        assert f"{megabytes(self):.2f}" == "22.33"

    @staticmethod
    def block(inputs: int, middle: int, outputs: int) -> list[nn.Module]:
        """Two convolutions and a pooling; only the first is normalized, as in the tutorial."""
        return [
            nn.Conv2d(inputs, middle, kernel_size=3, padding=1),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, outputs, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=2, stride=2),
        ]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_layer(self.conv_layer(x).flatten(1))


class FastBlock(nn.Module):
    """Two convolutions with a pooling between them: `[B, inputs, H, W]` -> `[B, outputs, H/2, W/2]`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        for norm in (self.norm1, self.norm2):
            norm.weight.requires_grad_(False)  # the scale stays 1; the bias is what learns, and fast

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.pool(self.conv1(x))))
        return F.gelu(self.norm2(self.conv2(x)))


class FastCNN(nn.Module):
    """The published network of two million parameters: standardized pictures `[B, 3, 32, 32]` -> logits `[B, 10]`."""

    def __init__(self, widths: tuple[int, ...] = (64, 256, 256)) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 24, kernel_size=2)
        self.blocks = nn.Sequential(*(FastBlock(*channels) for channels in pairwise((24, *widths))))
        self.pool = nn.MaxPool2d(3)
        self.head = nn.Linear(widths[-1], 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.gelu(self.first(x)))  # [B, 24, 31, 31], then [B, 256, 3, 3]
        return self.head(self.pool(x).flatten(1)) / 9  # smaller logits: a softer beginning

    @torch.no_grad()
    def whiten(self, x: Tensor) -> None:
        """Freezes in the first layer what makes the 12 numbers of a 2x2 patch of `x` uncorrelated, of variance 1.

        Its 24 kernels are the eigenvectors of the patches' covariance over the roots of their eigenvalues, with both
        signs: what one's GELU cuts off, the other's lets through. The biases, which learn, begin at 0.
        """
        patches = F.unfold(x, kernel_size=2).transpose(1, 2).reshape(-1, 12)
        eigenvalues, eigenvectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        kernels = (eigenvectors / (eigenvalues + 5e-4).sqrt()).T.view(12, 3, 2, 2)
        self.first.weight.copy_(torch.cat([kernels, -kernels])).requires_grad_(False)
        self.first.bias.zero_()

    def begin_as_identity(self) -> None:
        """Lets the first outputs of every 3x3 convolution be its inputs (Dirac's kernels), the others as drawn."""
        for block in self.blocks:
            for layer in (block.conv1, block.conv2):
                nn.init.dirac_(layer.weight[: layer.in_channels])


class Standardized(nn.Sequential):
    """A network behind a `Standardize` layer, for pictures in [0, 1]: it gives logits in float32.

    It learns in bfloat16 where that is faster, as the U-Net does, and is used in float32.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(OrderedDict(standardize=Standardize(), network=network))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and has_bfloat16(x.device)):
            return super().forward(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            return super().forward(x).float()


def network_of(weights: dict[str, Tensor]) -> nn.Module:
    """Either network, fit for the `weights` of a `Standardized`: their names say which, their shapes how wide."""
    if "network.head.weight" not in weights:
        return CifarCNN()
    return FastCNN(tuple(weights[f"network.blocks.{block}.conv1.weight"].shape[0] for block in range(3)))


def output_shapes(network: nn.Module) -> Iterator[tuple[str, str, list[int]]]:
    """Name, kind and output of each layer that has no parts, for one picture: ("conv_layer.0", "Conv2d", [1, ...])."""
    seen = []
    for name, layer in network.named_modules():
        if not list(layer.children()):
            layer.register_forward_hook(
                lambda layer, _, output, name=name: seen.append((name, type(layer).__name__, list(output.shape)))
            )
    network.eval()(torch.zeros(1, 3, 32, 32))
    yield from seen


def training_operations(network: nn.Module) -> int:
    """Multiplications and additions of convolutions and full connections for one picture, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode  # takes a second, and is used once a training

    pictures = torch.rand(2, 3, 32, 32, device=next(network.parameters()).device)  # two, for BatchNorm
    with FlopCounterMode(display=False) as counter:
        network(pictures).sum().backward()
    network.zero_grad()
    return counter.get_total_flops() // 2
