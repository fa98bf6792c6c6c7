"""The segmentation tutorial's U-Nets, on the parts of `unet.py`: the whole one, a shallow one, one that adds its skips.

And what our recipe puts before them: `NoiseUnits`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet import CropAndConcat, UNet, add_norms, double_conv, draw_weights


class ShallowUNet(nn.Module):
    """The U-Net of two down-samplings instead of four (question 6): [B, C, H, W] -> [B, classes, H, W]."""

    def __init__(self, in_channels: int, out_channels: int, base_channels: int = 64) -> None:
        super().__init__()
        c1, c2, c3 = (base_channels * 2**level for level in range(3))
        self.down_conv1, self.down_sample1 = double_conv(in_channels, c1), nn.MaxPool2d(2)
        self.down_conv2, self.down_sample2 = double_conv(c1, c2), nn.MaxPool2d(2)
        self.middle_conv = double_conv(c2, c3)
        self.up_sample1, self.concat1 = nn.ConvTranspose2d(c3, c2, kernel_size=2, stride=2), CropAndConcat()
        self.up_conv1 = double_conv(c3, c2)
        self.up_sample2, self.concat2 = nn.ConvTranspose2d(c2, c1, kernel_size=2, stride=2), CropAndConcat()
        self.up_conv2 = double_conv(c2, c1)
        self.final_conv = nn.Conv2d(c1, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        skip1 = self.down_conv1(x)  # [B, c1, H, W]
        skip2 = self.down_conv2(self.down_sample1(skip1))  # [B, c2, H/2, W/2]
        x = self.middle_conv(self.down_sample2(skip2))  # [B, c3, H/4, W/4]
        x = self.up_conv1(self.concat1(self.up_sample1(x), skip2))
        x = self.up_conv2(self.concat2(self.up_sample2(x), skip1))
        return self.final_conv(x)


class CropAndAdd(nn.Module):
    """Adds a map of the contracting path to the expansive path's: [B, C, h, w] and [B, C, H, W] -> [B, C, h, w]."""

    def forward(self, x: Tensor, contracting_x: Tensor) -> Tensor:
        if contracting_x.shape[2:] != x.shape[2:]:
            from torchvision.transforms.functional import center_crop  # takes as long to import as PyTorch itself

            contracting_x = center_crop(contracting_x, list(x.shape[2:]))
        return x + contracting_x


class AddUNet(UNet):
    """The U-Net whose skips are added (section 3.2): each up_conv sees half as many maps, and is a third smaller."""

    def __init__(self, in_channels: int, out_channels: int, base_channels: int = 64) -> None:
        super().__init__(in_channels, out_channels, base_channels)
        for level in range(1, 5):
            channels = base_channels * 2 ** (4 - level)
            setattr(self, f"concat{level}", CropAndAdd())
            setattr(self, f"up_conv{level}", double_conv(channels, channels))


class NoiseUnits(nn.Module):
    """Pictures [B, 1, H, W] as deviations of their noise above their ground, cut off beyond -4 and 4.

    The generator maps each picture's darkest pixel to 0 and its brightest to 1, and so the one grey of the ground to
    another value in each. But both can be read off a picture: neighbours differ by the noise, except at a disc's edge;
    and six tenths or so of its tiles of 9x9 pixels show nothing but ground, the darkest tenths.
    """

    def forward(self, x: Tensor) -> Tensor:
        noise = (x[:, :, 1:] - x[:, :, :-1]).abs().flatten(1).median(dim=1).values / 0.954  # were it a normal one
        ground = F.avg_pool2d(x, 9).flatten(1).quantile(0.3, dim=1)
        return ((x - ground.view(-1, 1, 1, 1)) / noise.clamp(min=1e-6).view(-1, 1, 1, 1)).clamp(-4, 4)


NETWORKS = {"unet": UNet, "shallow": ShallowUNet, "add": AddUNet}


def make_network(name: str, norm: bool, base_channels: int) -> nn.Module:
    """The network called `name`, of grey pictures and two classes, with or without BatchNorm."""
    network = NETWORKS[name](1, 2, base_channels)
    draw_weights(network)
    if norm:  # after each convolution of a double_conv, as in the tutorial; then with PyTorch's own weights
        add_norms(network)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.reset_parameters()
    return network.to(memory_format=torch.channels_last)
