"""Finds the car in a photograph with the U-Net, and draws it.

    python infer_unet.py car.jpg out.png
    python infer_unet.py car.jpg out.png --mask mask.png --figure figure.png --model model.pth
    python infer_unet.py photographs/ overlays/

The first prints

    out.png: car on 22.0% of the picture

and, on standard error, `warning: …` of an answer that can be no car as the network knows them (see `doubt`). `out.png`
is the photograph at its full size, the car tinted and outlined; `--mask` is 255 on the car and 0 elsewhere;
`--figure` shows the photograph beside its mask, as the coursework does. A folder's pictures all go to another folder
(and so do `--mask` and `--figure`, then folders too): `a.jpg` to `a.png`, or, where two of the folder's pictures
differ in their ending only, every one to its full name, `a.jpg.png`.

In this order:

1. open: turned as its EXIF orientation says, 8 bits, RGB, anything transparent laid on white;
2. `Resize(572)`: the short side is 572 pixels (the long one at most `MAX_ASPECT` times that, so a strip stays small);
3. `ToTensor`: [1, 3, h, w] in [0, 1];
4. pad to multiples of 16 at the bottom and on the right, edge pixels repeated, so that the network crops nothing;
5. forward: a score for every pixel; crop the padding off;
6. interpolate the scores to the photograph's size (bilinear);
7. sigmoid, then threshold: 1 is car, 0 is not.

Steps 2 and 3 go without torchvision, which hands them to Pillow and NumPy anyway: to import it takes longer than all
seven. Without step 4 (`--no-pad`) the network gives 560 of 572 rows, and its maps lie some pixels apart (see
`UNet.forward`): right for weights that were trained so, and for no others.
"""

import argparse
import io
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.nn import functional as F
from tqdm import tqdm

from pictures import is_picture, open_photograph
from training import between, command, in_words, lacks_memory, pick_device, shipped, told, write_whole
from unet import UNet, load_unet

MAX_ASPECT = 4  # of the network's input; Carvana's is 1.5
NO_CAR = -20.0  # the score of a pixel that surely is none
TINT = (255, 0, 70)
# What of a mask is believed, a little more than Carvana's 4,608 true ones show: they fill 8.8% to 41.0% of the picture,
# lie along 10.8% of its edge at most, and have outlines at most 1.58 times as long as their box's. Of 250 photographs
# of cats and dogs the network's answers to 3 pass all bounds, and to 14 the first two.
BELIEVED = {"share": (0.08, 0.42), "edge": (0.0, 0.12), "outline": (0.0, 1.75)}
DOUBTS = {
    "share": "it fills {:.1%} of the picture; Carvana's cars fill 9% to 41%",
    "edge": "it lies along {:.0%} of the picture's edge, as a car does that is cut off",
    "outline": "it is frayed, or in pieces, its outline {:.1f} times as long as that of a box around it",
}
LOSSLESS = {"PNG", "BMP", "TIFF"}
ICONS = {"ICO", "ICNS"}  # formats that have sizes of their own


def network_size(width: int, height: int, size: int) -> tuple[int, int]:
    """Height and width of the network's input before padding: nearly `Resize(size, max_size=MAX_ASPECT * size)`."""
    short, long = sorted((width, height))
    new_short, new_long = size, size * long // short
    if new_long > MAX_ASPECT * size:
        new_short, new_long = max(1, MAX_ASPECT * size * short // long), MAX_ASPECT * size
    return (new_short, new_long) if height <= width else (new_long, new_short)


@torch.inference_mode()
def predict_scores(model: UNet, image: Image.Image, size: int = 572, pad: bool = True) -> torch.Tensor:
    """The scores [1, 1, h, w] of `image` (RGB), its short side `size` pixels, by steps 2 to 5 above.

    Without `pad` what the network gives lies over the middle of the picture, and the rim around it is not car.
    """
    device = next(model.parameters()).device
    height, width = network_size(*image.size, size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    x = torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1)[None] / 255  # [1, 3, h, w]
    if pad:
        x = F.pad(x, (0, -width % 16, 0, -height % 16), mode="replicate")
    scores = model(x.to(memory_format=torch.channels_last))[:, :, :height, :width]
    rows, columns = height - scores.shape[2], width - scores.shape[3]  # 0 and 0 with `pad`
    top, left = round(rows / 2), round(columns / 2)  # as center_crop puts it
    return F.pad(scores, (left, columns - left, top, rows - top), value=NO_CAR)


def mask_of(scores: torch.Tensor, width: int, height: int, threshold: float) -> np.ndarray:
    """The mask that `scores` [1, 1, h, w] mean, [height, width] uint8 of 0 and 1, by steps 6 and 7 above.

    `threshold`, in (0, 1), is the least probability that counts as car.
    """
    scores = F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=False)
    return (torch.sigmoid(scores[0, 0]) >= threshold).to(torch.uint8).cpu().numpy()


def predict_mask(
    model: UNet, image: Image.Image, size: int = 572, threshold: float = 0.5, pad: bool = True
) -> np.ndarray:
    """The car's mask, [H, W] uint8 of 0 and 1 at the size of `image` (RGB)."""
    return mask_of(predict_scores(model, image, size, pad), image.width, image.height, threshold)


def doubt(mask: np.ndarray) -> tuple[str, float] | None:
    """Why `mask`, [H, W] of 0 and 1, can be no whole car: a key of `DOUBTS`, and the number that it is about."""
    share = mask.mean()
    edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean()
    step = max(1, min(mask.shape) // 286)  # as the true masks were measured; finer, it would only take longer
    small = mask[::step, ::step]
    sides = sum(np.ptp(np.flatnonzero(small.any(axis=axis))) + 1 for axis in (0, 1)) if small.any() else 1
    outline = sum((np.diff(small, axis=axis) != 0).sum() for axis in (0, 1)) / (2 * sides)
    for name, value in {"share": share, "edge": edge, "outline": outline}.items():
        least, most = BELIEVED[name]
        if not least <= value <= most:
            return name, float(value)
    return None


def overlay(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """`image` (RGB) with the car of `mask`, [H, W] of 0 and 1, tinted, and a line along its edge."""
    car = Image.fromarray(np.asarray(mask, dtype=np.uint8) * 255)
    radius = max(1, round(max(image.size) / 800))
    # A blurred mask lies between 0 and 255 only along its edge, halfway exactly on it: a line with soft sides. One
    # table gives both, the line and the tint inside it, so that the picture is blended once.
    opacity = [min(255, max(4 * min(value, 255 - value), round(0.35 * value))) for value in range(256)]
    drawn = image.copy()
    if box := car.getbbox():  # the rest of the picture stays as it is
        left, top, right, bottom = box
        right, bottom = min(image.width, right + radius), min(image.height, bottom + radius)
        around = (max(0, left - radius), max(0, top - radius), right, bottom)
        drawn.paste(TINT, around, mask=car.crop(around).filter(ImageFilter.BoxBlur(radius)).point(opacity))
    return drawn


def save_picture(picture: Image.Image, path: Path, **options: Any) -> None:
    """Saves `picture` in the format that the name of `path` says; raises OSError if it cannot be done."""
    buffer = io.BytesIO()  # Pillow's JPEG encoder does not notice when a full disk takes only a part of the last block
    try:
        picture.save(buffer, Image.registered_extensions().get(path.suffix.lower()), **options)
    except ValueError as error:
        raise OSError(str(error)) from error
    path.write_bytes(buffer.getvalue())


def plot_img_and_mask(img: Image.Image, mask: np.ndarray, filename: Path | str) -> None:
    """Saves the coursework's figure as `filename`: `img` on the left, `mask == 0` (so the car is black) on the right.

    `mask` is an [H, W] integer array of 0 and 1. Raises OSError if the file cannot be written.
    """
    from matplotlib.figure import Figure  # takes a second, which every call would pay

    figure = Figure(figsize=(10, 0.4 + 4.9 * min(2, img.height / img.width)), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set_title("Input image")
    left.imshow(img)
    right.set_title("Mask")
    right.imshow(mask == 0, cmap="gray", vmin=0, vmax=1)
    for axes in (left, right):
        axes.set(xticks=[], yticks=[])
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    save_picture(Image.open(buffer).convert("RGB"), Path(filename))


def one_spelling(paths: list[Path]) -> set[str]:
    """The different files that `paths` name, however each is spelled."""
    return {os.path.normcase(path.resolve()) for path in paths}


def check_outputs(photo: Path, outputs: list[Path | None]) -> None:
    """Raises ValueError if an output cannot be written as a picture, or is `photo` itself or another output."""
    mask_path = outputs[1]
    given = [path for path in outputs if path is not None]
    for path in given:
        if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE.keys() - ICONS:
            raise ValueError(f"cannot tell the format of {path}: end its name in .png or .jpg")
        if path.is_dir() or not path.parent.is_dir():
            reason = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
            raise ValueError(f"cannot write {path}: {reason}")
        if path.exists() and photo.exists() and path.samefile(photo):
            raise ValueError(f"{path} is the input itself: give the output another name")
    if len(one_spelling(given)) < len(given):
        raise ValueError(f"two outputs have one name, {' and '.join(map(str, given))}: give each its own")
    if mask_path and Image.registered_extensions()[mask_path.suffix.lower()] not in LOSSLESS:
        raise ValueError(f"{mask_path} would blur the mask's 0 and 255: use a lossless format, such as .png")


def segment(model: UNet, photo: Path, outputs: list[Path | None], size: int, threshold: float, pad: bool) -> np.ndarray:
    """Writes the overlay, and where asked the mask and the figure, of `photo`; returns the mask, [H, W] of 0 and 1.

    `outputs` are the three paths in this order, None for what is not wanted. If one cannot be made, none is written; if
    one cannot take its place, the error names those that have. Raises ValueError or OSError, worded for the user.
    """
    check_outputs(photo, outputs)
    image = open_photograph(photo)
    try:
        mask = predict_mask(model, image, size, threshold, pad)
    except (RuntimeError, MemoryError) as error:
        if lack := lacks_memory(error, f"choose a smaller --size than {size} for {photo}"):
            raise ValueError(lack) from None
        raise
    # Pillow's default, level 6, makes a PNG hardly smaller and takes as long as a small network's forward.
    saves = [
        lambda part: save_picture(overlay(image, mask), part, compress_level=1, quality=95),
        lambda part: save_picture(Image.fromarray(mask * 255), part),
        lambda part: plot_img_and_mask(image, mask, part),
    ]
    in_place: list[str] = []
    try:
        with ExitStack() as stack:  # each file takes its place only when all are ready
            for path, save in zip(outputs, saves, strict=True):
                if path is not None:
                    stack.push(lambda failure, *_, path=path: None if failure else in_place.append(str(path)))
                    save(stack.enter_context(write_whole(path)))
    except OSError as error:
        raise OSError(f"{error} (written: {', '.join(in_place)})" if in_place else str(error)) from error
    return mask


def folder_jobs(folder: Path, targets: list[Path | None]) -> dict[Path, list[Path | None]]:
    """The pictures directly in `folder`, each with its outputs in the folders `targets`, which are made where missing.

    Raises ValueError if there is no picture or a target cannot serve, OSError if it cannot be made.
    """
    photos = sorted(path for path in folder.iterdir() if path.is_file() and is_picture(path))
    if not photos:
        raise ValueError(f"there is no picture in the folder {folder}")
    wanted = [target for target in targets if target is not None]
    for target in wanted:
        if target.is_file():
            raise ValueError(f"{target} is a file, and {folder} a folder: give a folder for its outputs")
        if not next(path for path in (target, *target.absolute().parents) if path.exists()).is_dir():
            raise ValueError(f"cannot make the folder {target}: a part of its path is a file")
        if target.exists() and target.samefile(folder):
            raise ValueError(f"{target} is the input folder itself: give the outputs another one")
    if len(one_spelling(wanted)) < len(wanted):
        raise ValueError("two outputs go to one folder: give each its own")
    for target in wanted:
        target.mkdir(parents=True, exist_ok=True)
    # All or none keep their full name, so that no full name can meet another picture's short one.
    stems_differ = len({photo.stem.casefold() for photo in photos}) == len(photos)
    names = {photo: f"{photo.stem if stems_differ else photo.name}.png" for photo in photos}
    return {photo: [target and target / names[photo] for target in targets] for photo in photos}


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Write the overlay of the car in a photograph.")
    parser.add_argument("input", type=Path, help="a photograph, or a folder of them")
    parser.add_argument("output", type=Path, help="the overlay, .png, .jpg or another picture format; or a folder")
    model = shipped("model.pth")
    parser.add_argument("-m", "--model", type=Path, default=model, help="the weights (default: model.pth)")
    size = between(16, 4096)
    parser.add_argument(
        "--size", type=size, default=572, help="short side of the network's input (default: 572 pixels)"
    )
    threshold = between(1e-6, 1 - 1e-6)
    parser.add_argument("--threshold", type=threshold, default=0.5, help="least probability that is car (default: 0.5)")
    pad_help = "for weights trained on pictures that were not padded, as the coursework's own model.pth presumably was"
    parser.add_argument("--no-pad", dest="pad", action="store_false", help=pad_help)
    parser.add_argument("--mask", type=Path, help="also write the mask, 255 on the car and 0 elsewhere")
    parser.add_argument("--figure", type=Path, help="also write the photograph beside its mask")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    args = parser.parse_args()
    targets = [args.output, args.mask, args.figure]
    # A full-width network writes gigabytes of maps, which is faster in Linux's huge pages. Read by PyTorch when it
    # makes its first tensor, ignored elsewhere.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

    with told():
        model = load_unet(args.model, pick_device(args.device))
        jobs = folder_jobs(args.input, targets) if args.input.is_dir() else {args.input: targets}
    failures = []
    progress = tqdm(jobs.items(), unit="picture", disable=None if args.input.is_dir() else True)
    try:
        for photo, outputs in progress:
            try:
                mask = segment(model, photo, outputs, args.size, args.threshold, args.pad)
            except (ValueError, OSError) as error:
                failures.append(f"error: {in_words(error)}")
                continue
            progress.write(f"{outputs[0]}: car on {mask.mean():.1%} of the picture")
            found = doubt(mask)
            if not mask.any():
                progress.write(
                    f"warning: no car found in {photo}: is it a photograph of a whole car? (A lower --threshold may "
                    "find it; if none is found in any picture, the weights are untrained or damaged.)",
                    file=sys.stderr,
                )
            elif found:
                progress.write(
                    f"warning: what is found in {photo} can be no whole car: {DOUBTS[found[0]].format(found[1])}. (The "
                    "network has learned one thing: one car, whole, in Carvana's bright hall.)",
                    file=sys.stderr,
                )
    except KeyboardInterrupt:
        sys.exit("\nstopped: what is named above is done, and nothing is half written")
    if failures and args.input.is_dir():
        failures.append(f"error: {len(failures)} of {len(jobs)} pictures could not be done")
    if failures:
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
