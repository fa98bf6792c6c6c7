"""ResNet from scratch (He et al., 2015; the cats and dogs tutorial, 模型构建), and two networks to compare it with.

    python -m labs.resnet                    prints the ResNets' layers, as the tutorial's appendix does
    network = resnet18()
    network.load_state_dict(torchvision.models.resnet18(weights="DEFAULT").state_dict())

Parameters bear torchvision's names, so that weights go both ways. Every network takes pictures `[B, 3, H, W]` in
[-1, 1], of any size, and gives scores `[B, num_classes]` before the softmax.
"""

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around which a shortcut leads, y = relu(g(x) + x): `[B, in, H, W]` -> `[B, out, H/s, W/s]`.

    Where the shape changes, `downsample` brings x to the shape of g(x), else the two could not be added.
    """

    expansion = 1

    def __init__(
        self, in_channel: int, out_channel: int, stride: int = 1, downsample: nn.Module | None = None, **kwargs: int
    ) -> None:
        """`kwargs` is what `ResNet` tells blocks with grouped convolutions; this one has none."""
        super().__init__()
        # No bias: the BatchNorm that follows subtracts the mean, and has a bias of its own.
        self.conv1 = nn.Conv2d(in_channel, out_channel, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channel)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channel, out_channel, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channel)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + identity)


def make_downsample(in_channel: int, out_channel: int, stride: int) -> nn.Sequential | None:
    """The shortcut's 1x1 convolution, the tutorial's figure D; None where x already has the shape of g(x)."""
    if stride == 1 and in_channel == out_channel:
        return None
    convolution = nn.Conv2d(in_channel, out_channel, kernel_size=1, stride=stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channel))


def draw_weights(network: nn.Module) -> None:
    """Random first weights for convolutions before a ReLU (He et al., 2015, "Delving deep", section 2.2)."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


class ResNet(nn.Module):
    """A stem, which makes maps of a quarter of the size, then four layers of `blocks_num` blocks each (section 4.1).

    Without `include_top` it gives the last maps, `[B, 512 * expansion, H/32, W/32]`, and no scores.
    """

    def __init__(
        self,
        block: type[nn.Module],
        blocks_num: list[int],
        num_classes: int = 1000,
        include_top: bool = True,
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        super().__init__()
        self.include_top = include_top
        self.in_channel = 64
        self.groups, self.width_per_group = groups, width_per_group
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, 64, blocks_num[0])
        self.layer2 = self._make_layer(block, 128, blocks_num[1], stride=2)
        self.layer3 = self._make_layer(block, 256, blocks_num[2], stride=2)
        self.layer4 = self._make_layer(block, 512, blocks_num[3], stride=2)
        if include_top:
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.fc = nn.Linear(512 * block.expansion, num_classes)
        draw_weights(self)

    def _make_layer(self, block: type[nn.Module], channel: int, block_num: int, stride: int = 1) -> nn.Sequential:
        """`block_num` blocks, of which the first halves the maps where `stride` is 2."""
        kinds = {"groups": self.groups, "width_per_group": self.width_per_group}
        out_channel = channel * block.expansion
        downsample = make_downsample(self.in_channel, out_channel, stride)
        layers = [block(self.in_channel, channel, stride=stride, downsample=downsample, **kinds)]
        self.in_channel = out_channel
        layers += [block(out_channel, channel, **kinds) for _ in range(1, block_num)]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # [B, 64, H/4, W/4]
        x = self.layer2(self.layer1(x))  # [B, 128, H/8, W/8]
        x = self.layer4(self.layer3(x))  # [B, 512, H/32, W/32]
        if self.include_top:
            x = self.fc(torch.flatten(self.avgpool(x), 1))
        return x


def resnet18(num_classes: int = 1000, include_top: bool = True) -> ResNet:
    return ResNet(BasicBlock, [2, 2, 2, 2], num_classes=num_classes, include_top=include_top)


def resnet34(num_classes: int = 1000, include_top: bool = True) -> ResNet:
    return ResNet(BasicBlock, [3, 4, 6, 3], num_classes=num_classes, include_top=include_top)


def small(num_classes: int = 1000) -> nn.Sequential:
    """A ResNet for few pictures and two cores: a stem of one convolution, then three layers of two blocks each."""
    channels = 32
    layers = [
        nn.Conv2d(3, channels, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    ]
    for width in (48, 96, 128):
        layers += [BasicBlock(channels, width, 2, make_downsample(channels, width, 2)), BasicBlock(width, width)]
        channels = width
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
    draw_weights(network)
    return network


def plain(num_classes: int = 1000) -> nn.Sequential:
    """Simple convolutions, such as the tutorial began with: no shortcut, no BatchNorm, and pooling halves the maps."""
    channels, layers = 3, []
    for width in (32, 64, 128, 256, 256):
        layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
        channels = width
    # 7x7 is what five halvings leave of 224: then this pooling changes nothing, and other sizes fit as well.
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(channels * 49, num_classes))


NETWORKS = {"plain": plain, "resnet18": resnet18, "resnet34": resnet34, "small": small}

if __name__ == "__main__":
    from training import command  # here: whoever imports the networks needs PyTorch alone

    command(lambda: print("\n\n".join(f"{name}: {NETWORKS[name](2)}" for name in NETWORKS)))()
