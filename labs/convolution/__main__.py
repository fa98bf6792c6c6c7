"""Convolution and its transpose by hand: a companion lab (the segmentation tutorial's appendix).

    python -m labs.convolution

prints the tutorial's two results,

    [[[ 2.  0.  2.  4.  0.]         [[[ 3.  3.  2.  7.  5.]
      [ 1.  4.  4.  3.  5.]           [ 6.  8.  5. 11.  2.]
      ...                             ...

says that PyTorch agrees with each function here, and draws filters.jpg, padding.jpg, upsampling.png and sigmoid.png
beside this file.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labs.commands import drawing, lab_parser
from pictures import open_photograph
from report.tables import RESULTS, write_json
from training import ROOT, command, told, write_rows

FIGURES = Path(__file__).parent

CONV_INPUT = [  # [2, 5, 5]
    [[1, 0, 1, 2, 1], [0, 2, 1, 0, 1], [1, 1, 0, 2, 0], [2, 2, 1, 1, 0], [2, 0, 1, 2, 0]],
    [[2, 0, 2, 1, 1], [0, 1, 0, 0, 2], [1, 0, 0, 2, 1], [1, 1, 2, 1, 0], [1, 0, 1, 1, 1]],
]
CONV_WEIGHTS = [[[[1, 0, 1], [-1, 1, 0], [0, -1, 0]], [[-1, 0, 1], [0, 0, 1], [1, 1, 1]]]]  # [1, 2, 3, 3]
DECONV_INPUT = [  # [4, 3, 3]
    [[1, 0, 1], [0, 2, 1], [1, 1, 0]],
    [[2, 0, 2], [0, 1, 0], [1, 0, 0]],
    [[1, 1, 1], [2, 2, 0], [1, 1, 1]],
    [[1, 1, 2], [1, 0, 1], [0, 2, 2]],
]
DECONV_WEIGHTS = [  # [2, 4, 3, 3]
    [
        [[1, 0, 1], [-1, 1, 0], [0, -1, 0]],
        [[-1, 0, 1], [0, 0, 1], [1, 1, 1]],
        [[0, 1, 1], [2, 0, 1], [1, 2, 1]],
        [[1, 1, 1], [0, 2, 1], [1, 0, 1]],
    ],
    [
        [[1, 0, 2], [-2, 1, 1], [1, -1, 0]],
        [[-1, 0, 1], [-1, 2, 1], [1, 1, 1]],
        [[0, 0, 0], [2, 2, 1], [1, -1, 1]],
        [[2, 1, 1], [0, -1, 1], [1, 1, 1]],
    ],
]
BLUR = np.full((9, 9), 1 / 81)
SHARPEN = np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]])
SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])  # how much brighter it is on the right; transposed, below
LOSSES = {"BCE": F.binary_cross_entropy, "MSE": F.mse_loss}
TENT = np.outer([0.5, 1, 0.5], [0.5, 1, 0.5])  # between two pixels, half of each
# Conv2d's, and NumPy's
PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def convolution(feature_map: np.ndarray, kernel: np.ndarray, stride: int = 1, dilation: int = 1) -> np.ndarray:
    """`feature_map` `[H, W]` under `kernel` `[k, k]`, k odd, with zeros beyond the edges (appendix, 1).

    `[ceil(H / stride), ceil(W / stride)]`: the kernel goes on by `stride` pixels, and its own lie `dilation` apart.
    """
    (h, w), reach = feature_map.shape, dilation * (len(kernel) - 1) + 1
    padded = np.pad(feature_map, reach // 2)
    result = np.zeros((-(-h // stride), -(-w // stride)))
    for i, top in enumerate(range(0, h, stride)):
        for j, left in enumerate(range(0, w, stride)):
            result[i, j] = np.sum(padded[top : top + reach : dilation, left : left + reach : dilation] * kernel)
    return result


def conv2d(feature_maps: np.ndarray, weights: np.ndarray, stride: int = 1, dilation: int = 1) -> np.ndarray:
    """`[C, H, W]` under `weights` `[C_out, C, k, k]`: `[C_out, ...]`, each the sum over all the maps (appendix, 1)."""
    return np.stack(
        [
            sum(convolution(*pair, stride, dilation) for pair in zip(feature_maps, kernels, strict=True))
            for kernels in weights
        ]
    )


def fill_zeros(feature_maps: np.ndarray) -> np.ndarray:
    """`[C, H, W]` with a row and a column of zeros around and between: `[C, 2H + 1, 2W + 1]` (appendix, 2)."""
    c, h, w = feature_maps.shape
    result = np.zeros((c, 2 * h + 1, 2 * w + 1))
    result[:, 1::2, 1::2] = feature_maps
    return result


def deconv2d(feature_maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The transposed convolution of stride 2: `[C, H, W]` -> `[C_out, 2H - 1, 2W - 1]` (appendix, question 7)."""
    return conv2d(fill_zeros(feature_maps), weights)[:, 1:-1, 1:-1]


def upsampled(feature_map: np.ndarray, mode: str) -> np.ndarray:
    """`[H, W]` made larger without anything to learn: "nearest" to `[2H, 2W]`, "bilinear" to `[2H - 1, 2W - 1]`.

    Both are transposed convolutions of stride 2 whose kernel stays as it is.
    """
    if mode == "nearest":
        return feature_map.repeat(2, axis=0).repeat(2, axis=1)
    return deconv2d(feature_map[None], TENT[None, None])[0]


def output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """How many rows or columns a convolution makes of `size` (the CIFAR tutorial's formula, with dilation)."""
    return (size - (dilation * (kernel - 1) + 1) + 2 * padding) // stride + 1


def largest_difference(ours: np.ndarray, theirs: torch.Tensor) -> float:
    assert ours.shape == tuple(theirs.shape)
    return float(np.abs(ours - theirs.numpy()).max())


def compare_with_pytorch(random: np.random.Generator) -> dict[str, float]:
    """The largest difference between each function here and PyTorch's, over random maps of many shapes."""
    conv, deconv = [], []
    for channels, maps, kernel, h, w in itertools.product((1, 2, 3), (1, 3), (1, 3, 5), (1, 4, 7), (2, 5)):
        x, weights = random.normal(size=(channels, h, w)), random.normal(size=(maps, channels, kernel, kernel))
        image, filters = torch.from_numpy(x)[None], torch.from_numpy(weights)
        for stride, dilation in itertools.product((1, 2, 3), (1, 2)):
            theirs = F.conv2d(image, filters, None, stride, dilation * (kernel // 2), dilation)[0]
            conv.append(largest_difference(conv2d(x, weights, stride, dilation), theirs))
        turned = filters.rot90(2, (2, 3)).transpose(0, 1)  # each input map's own kernels first, turned by 180 degrees
        theirs = F.conv_transpose2d(image, turned, stride=2, padding=kernel // 2)[0]
        deconv.append(largest_difference(deconv2d(x, weights), theirs))
    return {"cases": len(conv), "conv2d": max(conv), "deconv_cases": len(deconv), "deconv2d": max(deconv)}


def check_output_sizes() -> dict[str, int]:
    """Makes every layer of up to 5 of each number that fits on a map of 12: does the formula tell its output?"""
    layers = right = 0
    for kernel, stride, padding, dilation in itertools.product(range(1, 6), range(1, 6), range(6), range(1, 6)):
        if dilation * (kernel - 1) + 1 <= 12 + 2 * padding:
            layer = nn.Conv2d(1, 1, kernel, stride, padding, dilation)
            layers += 1
            right += layer(torch.zeros(1, 1, 12, 12)).shape[2] == output_size(12, kernel, stride, padding, dilation)
    return {"layers": layers, "right": int(right)}


def pool_with_ceil(feature_map: np.ndarray) -> np.ndarray:
    """The largest of each 2x2 of `[H, W]`, odd sides filled up: 5x5 -> 3x3 (the CIFAR tutorial, pooling).

    Filled up with minus infinity: a zero, as that tutorial has it, would be the largest wherever all else is negative.
    """
    h, w = feature_map.shape
    padded = np.pad(feature_map.astype(float), ((0, h % 2), (0, w % 2)), constant_values=-np.inf)
    return padded.reshape(len(padded) // 2, 2, -1, 2).max(axis=(1, 3))


def grouped_conv2d(feature_maps: np.ndarray, weights: np.ndarray, groups: int) -> np.ndarray:
    """`[C, H, W]` under `weights` `[C_out, C / groups, k, k]`, each group of maps on its own: `[C_out, H, W]`."""
    parts = zip(np.split(feature_maps, groups), np.split(weights, groups), strict=True)
    return np.concatenate([conv2d(maps, kernels) for maps, kernels in parts])


def check_relatives(random: np.random.Generator) -> dict[str, float]:
    """The largest difference from PyTorch of ceil pooling, groups, and a full connection written as a convolution."""
    odd = random.normal(size=(5, 5)) - 3  # negative, so that padding with zeros would show
    ceil = largest_difference(pool_with_ceil(odd), F.max_pool2d(torch.from_numpy(odd)[None], 2, ceil_mode=True)[0])
    x = random.normal(size=(4, 6, 6))
    differences = {"ceil_pooling": ceil}
    for groups in (1, 2, 4):
        weights = random.normal(size=(8, 4 // groups, 3, 3))
        theirs = F.conv2d(torch.from_numpy(x)[None], torch.from_numpy(weights), padding=1, groups=groups)[0]
        differences[f"groups_{groups}"] = largest_difference(grouped_conv2d(x, weights, groups), theirs)
        differences[f"weights_{groups}"] = weights.size
    # From the middle, a kernel as large as the map sees all of it.
    maps, full = random.normal(size=(2, 5, 5)), nn.Linear(50, 3, bias=False, dtype=torch.float64)
    weights = full.weight.detach().numpy().reshape(3, 2, 5, 5)
    outputs = full(torch.from_numpy(maps).flatten()).detach()
    differences["full_connection"] = largest_difference(conv2d(maps, weights)[:, 2, 2], outputs)
    return differences | check_upsampling(random.normal(size=(5, 7)))


def check_upsampling(x: np.ndarray) -> dict[str, float]:
    """The largest difference of `upsampled` from PyTorch, and from PyTorch's transposed convolution with 2x2 ones."""
    image = torch.from_numpy(x)[None, None]
    h, w = x.shape
    smooth = F.interpolate(image, size=(2 * h - 1, 2 * w - 1), mode="bilinear", align_corners=True)
    nearest = upsampled(x, "nearest")
    stamped = F.conv_transpose2d(image, torch.ones(1, 1, 2, 2, dtype=image.dtype), stride=2)
    return {
        "nearest": largest_difference(nearest, F.interpolate(image, scale_factor=2)[0, 0]),
        "nearest_as_transposed": largest_difference(nearest, stamped[0, 0]),
        "bilinear": largest_difference(upsampled(x, "bilinear"), smooth[0, 0]),
    }


def slope(loss: Callable[..., Tensor], scores: Tensor) -> Tensor:
    """The gradient of `loss` by each score before the sigmoid, where the truth is 1 (the segmentation tutorial)."""
    scores = scores.clone().requires_grad_()
    loss(scores.sigmoid(), torch.ones_like(scores), reduction="sum").backward()
    return scores.grad


def draw_filters(path: Path, picture: np.ndarray) -> None:
    """Writes `picture` `[H, W, 3]` in [0, 1] beside itself blurred, sharpened, and its edges."""
    channels = picture.transpose(2, 0, 1)
    blurred, sharp = (np.stack([convolution(one, kernel) for one in channels], axis=2) for kernel in (BLUR, SHARPEN))
    grey = picture.mean(axis=2)
    edges = np.hypot(convolution(grey, SOBEL), convolution(grey, SOBEL.T))
    edges[[0, -1]] = edges[:, [0, -1]] = 0  # there the padding's zeros are the edge
    panels = {"car.jpg": picture, "9x9 box blur": blurred, "Sharpened": sharp, "Sobel edges": 1 - edges / edges.max()}
    draw_panels(path, panels)


def draw_padding_modes(path: Path, picture: np.ndarray) -> None:
    """Writes `picture` `[H, W, 3]` in [0, 1] with a border in each of `Conv2d`'s padding modes."""
    h, w, _ = picture.shape
    border = ((h // 3, h // 3), (w // 3, w // 3), (0, 0))
    draw_panels(path, {name: np.pad(picture, border, mode=mode) for name, mode in PADDING_MODES.items()})


def draw_upsampling(path: Path, picture: np.ndarray) -> None:
    """Writes `picture` `[H, W]` in [0, 1] made twice as large: plainly, and by transposed convolutions not yet trained.

    Their kernels are all alike, and make an even surface as bright as it was, on the average.
    """
    uneven = deconv2d(picture[None], np.full((1, 1, 3, 3), 4 / 9))[0]
    panels = {
        "nearest; also kernel 2, all alike": upsampled(picture, "nearest"),
        "bilinear; also kernel 3, a tent": upsampled(picture, "bilinear"),
        "kernel 3, all alike": uneven,
    }
    with drawing(path, 9, 2.2) as figure:
        for axes, (title, large) in zip(figure.subplots(1, 3), panels.items(), strict=True):
            axes.imshow(large, cmap="gray", vmin=0, vmax=1)
            axes.set_title(title, fontsize=10)
            axes.axis("off")


def draw_slopes(path: Path) -> None:
    """Writes how far a step is that either loss asks for, over the score before the sigmoid."""
    scores = torch.linspace(-8, 8, 401, dtype=torch.float64)
    with drawing(path, 6, 3) as figure:
        axes = figure.subplots()
        for name, loss in LOSSES.items():
            axes.plot(scores, -slope(loss, scores), label=name)
        axes.set(xlabel="score before the sigmoid, where the truth is 1", ylabel="minus the gradient")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)


def draw_panels(path: Path, panels: dict[str, np.ndarray]) -> None:
    with drawing(path, 9, 6.6, pil_kwargs={"quality": 85}) as figure:
        for axes, (title, picture) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
            axes.imshow(picture.clip(0, 1), cmap="gray")
            axes.set_title(title)
            axes.axis("off")


@command
def main() -> None:
    lab_parser("convolution", __doc__).parse_args()
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    np.set_printoptions(suppress=True)
    print("conv2d of the tutorial's matrices:")
    print(conv2d(np.array(CONV_INPUT), np.array(CONV_WEIGHTS)))
    print("deconv2d of the tutorial's matrices (question 7):")
    print(deconv2d(np.array(DECONV_INPUT), np.array(DECONV_WEIGHTS)))

    result = {"pytorch": compare_with_pytorch(random), "sizes": check_output_sizes(), **check_relatives(random)}
    agreement, sizes = result["pytorch"], result["sizes"]
    print(f"\nPyTorch agrees on {agreement['cases']} random inputs: largest difference {agreement['conv2d']:.0e} of")
    print("conv2d, its strides up to 3 and dilations up to 2; on ", end="")
    print(f"{agreement['deconv_cases']}: {agreement['deconv2d']:.0e} of deconv2d,")
    print("the kernel turned by 180 degrees for conv_transpose2d")

    impulse = np.zeros((1, 3, 3))
    impulse[0, 1, 1] = 1
    numbers = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    stamped = F.conv_transpose2d(torch.from_numpy(impulse), torch.from_numpy(numbers), padding=1)
    print(f"\nA single 1 under the kernel 1 2 3 / 4 5 6 / 7 8 9:\nconv2d\n{conv2d(impulse, numbers)[0]}")
    print(f"conv_transpose2d\n{stamped[0].numpy()}")

    print(f"\nOutput size by the formula: right for {sizes['right']} of {sizes['layers']} layers")
    print(f"5x5 pooled to 3x3 by ceil padding: difference {result['ceil_pooling']:.0e}")
    for groups, name in ((1, "convolution"), (2, "2 groups"), (4, "depthwise")):
        print(f"{name}: {result[f'weights_{groups}']} weights, difference {result[f'groups_{groups}']:.0e}")
    print(f"full connection as a convolution: difference {result['full_connection']:.0e}")
    for name in ("nearest", "nearest_as_transposed", "bilinear"):
        print(f"upsampling, {name.replace('_', ' ')}: difference {result[name]:.0e}")

    scores = torch.tensor([-8.0, -4.0, 0.0, 4.0], dtype=torch.float64)
    columns = {"score": scores, "probability": scores.sigmoid()}
    columns |= {name: slope(loss, scores) for name, loss in LOSSES.items()}
    gradients = [dict(zip(columns, values, strict=True)) for values in torch.stack([*columns.values()], dim=1).tolist()]
    print("\nScore, its sigmoid, and the gradient of either loss where the truth is 1:")
    for row in gradients:
        print("  ".join(f"{name} {value:.4f}" for name, value in row.items()))

    with told():
        photograph = open_photograph(ROOT / "car.jpg")
        picture = np.asarray(photograph.resize((480, 320))) / 255  # the definition takes its time
        draw_filters(FIGURES / "filters.jpg", picture)
        draw_padding_modes(FIGURES / "padding.jpg", picture)
        roof = picture[88:128, 180:250].mean(axis=2)
        draw_upsampling(FIGURES / "upsampling.png", roof)
        draw_slopes(FIGURES / "sigmoid.png")
        write_json(RESULTS / "labs" / "convolution.json", result)
        write_rows(RESULTS / "labs" / "convolution_gradients.csv", gradients)
    print(f"\nWritten: {FIGURES / 'filters.jpg'}, padding.jpg, upsampling.png and sigmoid.png")


if __name__ == "__main__":
    main()
