"""The coursework's U-Net, and the reading of its `model.pth`.

    from unet import UNet, load_unet

    model = load_unet("model.pth", torch.device("cpu"))
    scores = model(images)    # [B, 3, H, W] in [0, 1] -> [B, 1, 16 * (H // 16), 16 * (W // 16)], before the sigmoid

After Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation" (2015), figure 1,
as the coursework changes it: 3x3 convolutions are padded by 1, `final_conv` has one output channel, and the expansive
path's map comes first in the concatenation. Its class and attribute names follow labml.ai's annotated U-Net.
"""

import pickle
import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval
from torchvision.transforms.functional import center_crop

# Under these keys training scripts commonly wrap the state_dict.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
MAX_WIDTH = 1024  # base channels that a checkpoint may claim to have


class CropAndConcat(nn.Module):
    """Joins a map of the expansive path with the contracting path's map of the same level."""

    def forward(self, x: torch.Tensor, contracting_x: torch.Tensor) -> torch.Tensor:
        """[B, C, h, w] and [B, D, H, W] with H >= h, W >= w -> [B, C + D, h, w], `x` in the first C channels."""
        b, c, h, w = x.shape
        return torch.cat([x, center_crop(contracting_x, [h, w])], dim=1)


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions, each followed by a ReLU: [B, in_channels, H, W] -> [B, out_channels, H, W]."""
    # A convolution's gradient does not need its own output, so the ReLU may overwrite it: less memory, and faster.
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
    )


def draw_weights(network: nn.Module) -> None:
    """Draws the first weights of every convolution from a normal distribution, and sets its biases to 0.

    Without normalization layers the signal must keep its size by itself through 18 convolutions with ReLU: PyTorch's
    default shrinks it at every one (the paper's section 3 asks for the same, sqrt(2 / N)).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)


def add_norms(network: nn.Module) -> None:
    """Puts a BatchNorm (Ioffe and Szegedy, 2015) after each convolution of every `double_conv`, for a training."""
    for name, part in network.named_children():
        if isinstance(part, nn.Sequential):
            layers = [[x, nn.BatchNorm2d(x.out_channels)] if isinstance(x, nn.Conv2d) else [x] for x in part]
            setattr(network, name, nn.Sequential(*sum(layers, [])))


def fold_norms(network: nn.Module) -> None:
    """Undoes `add_norms`: what each has learned goes into the convolution before it, which then gives the same."""
    for name, part in network.eval().named_children():
        if isinstance(part, nn.Sequential):
            layers = []
            for layer in part:
                if isinstance(layer, nn.BatchNorm2d):
                    layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
                else:
                    layers.append(layer)
            setattr(network, name, nn.Sequential(*layers))


class UNet(nn.Module):
    """U-Net of four levels. `UNet(3, 1)` is the coursework's: 46 tensors, 31,031,745 parameters.

    `base_channels` is the width of the first level; each deeper level doubles it.
    """

    def __init__(self, in_channels: int, out_channels: int, base_channels: int = 64):
        super().__init__()
        c1, c2, c3, c4, c5 = (base_channels * 2**level for level in range(5))

        # Contracting path: a map of half the height and width after each down_sample.
        self.down_conv1 = double_conv(in_channels, c1)
        self.down_sample1 = nn.MaxPool2d(2)
        self.down_conv2 = double_conv(c1, c2)
        self.down_sample2 = nn.MaxPool2d(2)
        self.down_conv3 = double_conv(c2, c3)
        self.down_sample3 = nn.MaxPool2d(2)
        self.down_conv4 = double_conv(c3, c4)
        self.down_sample4 = nn.MaxPool2d(2)

        self.middle_conv = double_conv(c4, c5)

        # Expansive path, the deepest level first. up_conv takes twice what up_sample gives: the concatenation.
        self.up_sample1 = nn.ConvTranspose2d(c5, c4, kernel_size=2, stride=2)
        self.concat1 = CropAndConcat()
        self.up_conv1 = double_conv(c5, c4)
        self.up_sample2 = nn.ConvTranspose2d(c4, c3, kernel_size=2, stride=2)
        self.concat2 = CropAndConcat()
        self.up_conv2 = double_conv(c4, c3)
        self.up_sample3 = nn.ConvTranspose2d(c3, c2, kernel_size=2, stride=2)
        self.concat3 = CropAndConcat()
        self.up_conv3 = double_conv(c3, c2)
        self.up_sample4 = nn.ConvTranspose2d(c2, c1, kernel_size=2, stride=2)
        self.concat4 = CropAndConcat()
        self.up_conv4 = double_conv(c2, c1)

        self.final_conv = nn.Conv2d(c1, out_channels, kernel_size=1)

        draw_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores before the sigmoid.

        [B, in_channels, H, W], H and W at least 16 -> [B, out_channels, 16 * (H // 16), 16 * (W // 16)]: each
        down_sample rounds down. When H or W is no multiple of 16, the last skip is cropped at its centre, so the output
        lies over the middle of the input; but the deep path starts at row and column 0, and the maps that are joined
        are some pixels apart. Pad the input, as `infer_unet.py` does, and nothing is cropped.
        """
        skip1 = self.down_conv1(x)  # [B, 64, H, W]
        skip2 = self.down_conv2(self.down_sample1(skip1))  # [B, 128, H/2, W/2]
        skip3 = self.down_conv3(self.down_sample2(skip2))  # [B, 256, H/4, W/4]
        skip4 = self.down_conv4(self.down_sample3(skip3))  # [B, 512, H/8, W/8]
        x = self.middle_conv(self.down_sample4(skip4))  # [B, 1024, H/16, W/16]

        x = self.up_conv1(self.concat1(self.up_sample1(x), skip4))  # [B, 512, H/8, W/8]
        x = self.up_conv2(self.concat2(self.up_sample2(x), skip3))  # [B, 256, H/4, W/4]
        x = self.up_conv3(self.concat3(self.up_sample3(x), skip2))  # [B, 128, H/2, W/2]
        x = self.up_conv4(self.concat4(self.up_sample4(x), skip1))  # [B, 64, H, W]
        return self.final_conv(x)


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of the checkpoint at `path` by name, unwrapped, without "module."; ValueError if it holds no such."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a checkpoint: give the path of the file in it")
    if not path.exists():
        raise ValueError(f"there is no checkpoint {path}: give the path of one")
    with path.open("rb") as file:  # raises the OSErrors that are about the file, not about what is in it
        start = file.read(2)
    if not start:
        raise ValueError(f"{path} is empty: copy or download it again")
    if start == b"PK" and (fault := _damaged_entry(path)):
        raise ValueError(f"{path} is damaged ({fault}): copy or download it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error below says all that a user can do something about
            # weights_only: a pickle may run any code when it is read, and a checkpoint is a file from anywhere.
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises almost anything for a file that is not its own
        raise ValueError(f"{path} {_why_unreadable(path, start, error)}") from None

    if isinstance(checkpoint, dict):
        wrapper = next((key for key in WRAPPERS if isinstance(checkpoint.get(key), dict)), None)
        checkpoint = checkpoint[wrapper] if wrapper else checkpoint
    if not isinstance(checkpoint, dict) or not any(isinstance(value, torch.Tensor) for value in checkpoint.values()):
        held = f"a {type(checkpoint).__name__}"
        if isinstance(checkpoint, dict):
            held += f" with {', '.join(map(repr, list(checkpoint)[:3])) or 'nothing in it'}"
        raise ValueError(f"{path} holds {held}, not a network's state_dict: save one with model.state_dict()")
    # DataParallel and DistributedDataParallel save the network that they wrap as their "module".
    return {str(name).removeprefix("module."): value for name, value in checkpoint.items()}


def _damaged_entry(path: Path) -> str | None:
    """What is damaged in a zip archive; torch.load does not compare the checksums that torch.save has written."""
    try:
        if not zipfile.is_zipfile(path):
            return None  # it is truncated, which is told in other words
        with zipfile.ZipFile(path) as archive:
            # torch.save writes no folders; where one bit of an entry says that it is one, torch.load would not read it.
            folders = [entry.filename for entry in archive.infolist() if entry.external_attr & 0x10]
            damaged = archive.testzip() or next(iter(folders), None)
    except Exception:  # zipfile raises almost anything for a damaged table of contents
        return "its table of contents cannot be read"
    return f"{damaged} has another checksum" if damaged else None


def _why_unreadable(path: Path, start: bytes, error: Exception) -> str:
    """What the file is instead of a checkpoint, and what to do, as the end of a sentence that begins with its path."""
    if start == b"PK" and not zipfile.is_zipfile(path):
        return "is truncated (a zip archive without its end): copy or download it again"
    if "TorchScript" in str(error):
        return "is a TorchScript archive, not a state_dict: save one with torch.save(model.state_dict(), ...)"
    if isinstance(error, pickle.UnpicklingError) and (found := re.search(r"GLOBAL (\S+)", str(error))):
        return (
            f"holds a pickled object ({found[1]}), such as a whole model; opening it could run any code, so it is not "
            "opened: whoever trusts it can save its state_dict with torch.save(model.state_dict(), ...)"
        )
    if isinstance(error, EOFError) or "unexpected EOF" in str(error) or "Ran out of input" in str(error):
        return "is truncated: copy or download it again"
    return "is not a PyTorch checkpoint (or a damaged one): expected a state_dict saved by torch.save"


def load_unet(path: Path | str, device: torch.device) -> UNet:
    """The `UNet(3, 1)` of any width whose weights `path` holds: float32, in eval mode, on `device`.

    `path` holds a `state_dict`, plain or under one of `WRAPPERS`, its names with or without "module.", in any floating
    point type. It is read by `torch.load(weights_only=True)`: nothing in it can run.

    Raises ValueError for anything else, its message saying what the file is instead; OSError if it cannot be read.
    """
    path = Path(path)
    state_dict = read_state_dict(path)
    if "inc.double_conv.0.weight" in state_dict:
        raise ValueError(
            f"{path} holds weights of milesial/Pytorch-UNet, another network (batch normalization, other names): "
            "use them with that project, or give the coursework's model.pth"
        )
    width = next(iter(getattr(state_dict.get("down_conv1.0.weight"), "shape", ())), 0)
    with torch.device("meta"):  # names and shapes only, so a wrong file costs no memory
        model = UNet(3, 1, base_channels=width if 0 < width <= MAX_WIDTH else 64)

    expected = model.state_dict()
    missing = [name for name in expected if name not in state_dict]
    unexpected = [name for name in state_dict if name not in expected]
    misshapen = [
        f"{name} {list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__}"
        f" for {list(expected[name].shape)}"
        for name, value in state_dict.items()
        if name in expected and getattr(value, "shape", None) != expected[name].shape
    ]
    faults = {"missing": missing, "unexpected": unexpected, "wrong shape": misshapen}
    if any(faults.values()):
        listed = "; ".join(
            f"{fault}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
            for fault, names in faults.items()
            if names
        )
        raise ValueError(f"{path} holds another network's weights than UNet(3, 1)'s ({listed})")
    for name, value in state_dict.items():
        if not value.is_floating_point() or value.is_meta or value.layout != torch.strided:
            held = "no values" if value.is_meta else f"{value.dtype} ({value.layout})"
            raise ValueError(f"{path}: {name} holds {held}, expected dense floating-point weights")
        # `torch.zeros(1).expand(...)` is a few bytes in the file, and gigabytes as soon as it is converted.
        if value.untyped_storage().nbytes() < value.numel() * value.element_size():
            raise ValueError(f"{path}: {name} holds fewer numbers than its shape {list(value.shape)} says")
        if not value.float().isfinite().all():
            raise ValueError(f"{path}: {name} holds NaN or infinity: its training diverged, use an earlier checkpoint")

    model.load_state_dict({name: value.float() for name, value in state_dict.items()}, strict=True, assign=True)
    # oneDNN and cuDNN convolve fastest with the channels innermost; only the order in memory differs.
    return model.to(device, memory_format=torch.channels_last).eval()
