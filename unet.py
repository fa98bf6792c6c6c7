"""The coursework's U-Net, and the reading of its `model.pth`.

    from unet import UNet, load_unet

    model = load_unet("model.pth", torch.device("cpu"))
    scores = model(images)    # [B, 3, H, W] in [0, 1] -> [B, 1, 16 * (H // 16), 16 * (W // 16)], before the sigmoid

After Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation" (2015), figure 1,
as the coursework changes it: 3x3 convolutions are padded by 1, `final_conv` has one output channel, and the expansive
path's map comes first in the concatenation. Names and plain nn.Sequentials are the course template's.
"""

import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

FIRST = "down_conv1.0.weight"  # of the network's tensors; what stands before it in a checkpoint stands before all
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # usual keys; of several networks, the first of these
# What torch.compile, DataParallel, FSDP and activation checkpointing put into the names of what they wrap.
WRAPPING = re.compile(r"(?<![^.])(_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


class CropAndConcat(nn.Module):
    """Joins a map of the expansive path with the contracting path's map of the same level."""

    def forward(self, x: Tensor, contracting_x: Tensor) -> Tensor:
        """[B, C, h, w] and [B, D, H, W] with H >= h, W >= w -> [B, C + D, h, w], `x` in the first C channels."""
        if contracting_x.shape[2:] != x.shape[2:]:
            from torchvision.transforms.functional import center_crop  # takes as long to import as PyTorch itself

            contracting_x = center_crop(contracting_x, list(x.shape[2:]))
        return torch.cat([x, contracting_x], dim=1)


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
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # to draw there would import the compiler
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)


def add_norms(network: nn.Module) -> None:
    """Puts a BatchNorm (Ioffe and Szegedy, 2015) after each convolution of every `double_conv`, for a training."""
    for name, part in network.named_children():
        if isinstance(part, nn.Sequential):
            layers = [[x, nn.BatchNorm2d(x.out_channels)] if isinstance(x, nn.Conv2d) else [x] for x in part]
            setattr(network, name, nn.Sequential(*sum(layers, [])))


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

    def forward(self, x: Tensor) -> Tensor:
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


SAVE, UNPACK = "torch.save(model.state_dict(), path)", "unpack it first, and give the .pth file in it"
KINDS = {  # by its first bytes, what a file is that torch.load does not open, and what to do
    rb"\Z": "is empty: copy or download it again",
    rb"version https://git-lfs": "is a pointer of Git LFS: fetch the file itself with git lfs pull",
    rb"PK.{28}[^/\0]+\.npy|\x93NUMPY": f"is a file of NumPy arrays: save a PyTorch network with {SAVE}",
    rb"PK.{28}(metadata|config)\.json|\x89HDF": f"is a Keras (HDF5) file: save a PyTorch network with {SAVE}",
    rb"\x08[\x01-\x20]\x12": f"is an ONNX file: save the PyTorch network with {SAVE}",
    rb".{6}\0\0\{": "is a safetensors file: torch.save what safetensors.torch.load_file gives for it",
    rb"\x89PNG|\xff\xd8\xff": "is not a PyTorch checkpoint but a picture: give the path of one, such as model.pth",
    rb"PK(?!.{28}[^/\0]+/data[./])|.{257}ustar|\x1f\x8b|BZh|\xfd7z|\(\xb5/\xfd|7z\xbc|Rar!": f"is an archive: {UNPACK}",
    rb"(PK.{28}[^/\0]+/data\.pkl(FB..Z*)?)?\x80[\x04\x05]": "is pickled in protocol 4 or 5, and only 2 is opened: save "
    f"it again with {SAVE}, without pickle_protocol",
    rb"[^\0-\x08\x0e-\x1f]+\Z": "is a web page or other text: download the file itself, such as by its raw link",
}
FAULTS = {  # the same of any other file, by the error of reading it
    "TorchScript": f"is a TorchScript archive, not a state_dict: save one with {SAVE}",
    r"GLOBAL ([\w.<>]+)": "holds a pickled object ({}), such as a whole model; opening it could run any code, so it is "
    f"not opened: whoever trusts it can save its state_dict with {SAVE}",
    "BadZipFile|EOFError|unexpected EOF|Ran out of input": "is damaged or truncated: copy or download it again",
    "": "is not a PyTorch checkpoint (or a damaged one): expected a state_dict saved by torch.save",
}
# What often lies beside the weights. Each is read as an empty class of its name, so that not even NumPy's code runs.
BESIDE = [
    type(name, (), {"__module__": module, "__init__": lambda *_: None, "__setstate__": lambda *_: None})
    for module in "numpy numpy.core.multiarray numpy._core.multiarray argparse pathlib torch.torch_version".split()
    for name in "dtype ndarray scalar _reconstruct Namespace PosixPath WindowsPath TorchVersion".split()
]


def read_checkpoint(path: Path) -> object:
    """What torch.save has written to `path`. ValueError if that is not all plain data, or the file is another."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a checkpoint: give the path of the file in it")
    if not path.exists():
        raise ValueError(f"there is no checkpoint {path}: give the path of one")
    with path.open("rb") as file:  # raises the OSErrors that are about the file, not about what is in it
        start = file.read(512)
    try:
        if start[:2] == b"PK":  # torch.load compares no checksums, and reads nothing that a flipped bit makes a folder
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() or any(x.external_attr & 0x10 and x.file_size for x in archive.infolist()):
                    raise zipfile.BadZipFile
        with warnings.catch_warnings(), torch.serialization.safe_globals(BESIDE):
            warnings.simplefilter("ignore")  # the error below says all that a user can do something about
            # weights_only: a pickle may run any code when it is read, and a checkpoint is a file from anywhere.
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile and torch.load raise almost anything for a file that is not theirs
        kinds = (re.match(pattern, start, re.DOTALL) for pattern in KINDS)
        found = next(filter(None, (*kinds, *(re.search(pattern, repr(error)) for pattern in FAULTS))))
        raise ValueError(f"{path} {(KINDS | FAULTS)[found.re.pattern].format(*found.groups())}") from None


def networks_in(checkpoint: object) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each set of named tensors in `checkpoint`, however deep and under what prefix, with the keys that lead there."""
    queue, seen = [("", checkpoint)], set()
    for place, held in queue:  # which grows meanwhile, but not for ever where a dictionary holds itself
        if not isinstance(held, dict | list | tuple) or id(held) in seen or len(place) > 999:
            continue
        seen.add(id(held))
        entries = held if isinstance(held, dict) else dict(enumerate(held))
        queue += [(f"{place}{key}.", value) for key, value in entries.items()]
        tensors = {k: x for k, x in entries.items() if isinstance(k, str) and isinstance(x, Tensor) and not x.is_nested}
        prefixes = {name[: name.index(FIRST[:10])] for name in tensors if WRAPPING.sub("", name).endswith(FIRST)}
        for prefix in sorted(prefixes or {""} if tensors else {}):
            inside = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
            plain = {WRAPPING.sub("", name): x for name, x in inside.items()}
            yield place + prefix, plain if len(plain) == len(inside) else inside


def find_state_dict(path: Path, checkpoint: object, expected: set[str]) -> dict[str, Tensor]:
    """The network in `checkpoint` that has all names of `expected`, else the one that has most; ValueError for none."""
    networks = list(networks_in(checkpoint))
    if not networks:
        of = f" of {', '.join(map(repr, checkpoint))[:99] or 'nothing'}" if isinstance(checkpoint, dict) else ""
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}{of}, no tensors by name: save them with {SAVE}")
    whole = [(place, network) for place, network in networks if expected <= network.keys()]
    if not whole:
        return max((network for _, network in networks), key=lambda x: (len(expected & x.keys()), len(x)))
    levels = zip(*(place.split(".") for place, _ in whole), strict=False)
    fork = next((keys for keys in levels if len(set(keys)) > 1), [""])  # the first keys in which they differ
    ranks = [(*WRAPPERS, key).index(key) for key in fork]
    if ranks.count(min(ranks)) > 1:
        places = ", ".join(repr(place[:-1] or "top level") for place, _ in whole)
        raise ValueError(f"{path} holds several networks ({places}): save the one to use with {SAVE}")
    return whole[ranks.index(min(ranks))][1]


def load_unet(path: Path | str, device: torch.device) -> UNet:
    """The `UNet(3, 1)` of any width whose weights `path` holds: float32, in eval mode, on `device`.

    `path` holds its `state_dict` in any floating-point type, be it in dictionaries or under a prefix; nothing in it can
    run. ValueError for anything else, its message saying what the file is instead; OSError if it cannot be read.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path)
    with torch.device("meta"):  # names and shapes only, so a wrong file costs no memory
        state_dict = find_state_dict(path, checkpoint, set(UNet(3, 1).state_dict()))
        width = next(iter(getattr(state_dict.get(FIRST), "shape", ())), 0)
        model = UNet(3, 1, base_channels=width if 0 < width <= 1024 else 64)  # more is no network of this kind
    if any(name.endswith("inc.double_conv.0.weight") for name in state_dict):
        raise ValueError(
            f"{path} holds weights of milesial/Pytorch-UNet, another network (batch normalization, other names): "
            "use them with that project, or give the coursework's model.pth"
        )
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    held = {name: list(value.shape) for name, value in state_dict.items()}
    faults = {
        "missing": [name for name in shapes if name not in held],
        "unexpected": [name for name in held if name not in shapes],
        "wrong shape": [f"{x} {held[x]} for {shapes[x]}" for x in held if held[x] != shapes.get(x, held[x])],
    }
    if any(faults.values()):
        more = {fault: f" and {len(names) - 3} more" if len(names) > 3 else "" for fault, names in faults.items()}
        told = "; ".join(f"{fault}: {', '.join(names[:3])}{more[fault]}" for fault, names in faults.items() if names)
        raise ValueError(f"{path} holds another network's weights than UNet(3, 1)'s ({repr(told)[1:-1]})")
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
