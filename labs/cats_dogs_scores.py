"""What a trained network says of pictures: its file, its answers, and the comparison of the lab's networks."""

import json
import sys
from pathlib import Path
from statistics import mean

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from labs.cats_dogs_pictures import CLASSES, find_pictures, load_pictures, normalize, open_picture
from labs.resnet import NETWORKS
from lenet import count_parameters
from report.experiments import read_table
from training import load_checkpoint, save_checkpoint, write_rows, write_whole

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "report" / "results" / "labs"
FIGURE = ROOT / "labs" / "figures" / "cats_dogs.png"


def save_network(path: Path, network: nn.Module, name: str, size: int) -> None:
    """Writes the weights in float16, with the network's `name` in NETWORKS and the `size` that it wants pictures in."""
    weights = {key: value.to("cpu", torch.float16, copy=True) for key, value in network.state_dict().items()}
    save_checkpoint(path, {"network": name, "size": size, "weights": weights})


def load_network(path: Path, device: torch.device) -> tuple[nn.Module, int]:
    """The network whose weights `path` holds, and its size of pictures; ValueError, worded for the user, if none."""
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        network = NETWORKS[held["network"]](len(CLASSES))
        network.load_state_dict({name: value.float() for name, value in held["weights"].items()})
        return network.to(device, memory_format=torch.channels_last).eval(), int(held["size"])
    except FileNotFoundError:
        raise ValueError(f"there are no weights {path}: give --model FILE, the cats_dogs.pth of a run") from None
    except Exception:  # torch.load raises almost anything for another file
        raise ValueError(f"{path} does not hold this lab's weights: give a run's cats_dogs.pth") from None


@torch.inference_mode()
def probabilities(network: nn.Module, images: Tensor) -> Tensor:
    """The probabilities of cat and dog, [N, 2], of pictures [N, 3, H, W] (bytes): the mean over each and its mirror."""
    device = next(network.parameters()).device
    answers = []
    for part in tqdm(images.split(50), "looking", unit="batch", leave=False, disable=None):
        x = normalize(part.to(device))
        answers.append((network(x).softmax(dim=1) + network(x.flip(3)).softmax(dim=1)).cpu() / 2)
    return torch.cat(answers)


def count_right(network: nn.Module, size: int, data: Path) -> tuple[int, int]:
    """How many of the pictures in `data` the network tells right, and how many there are; it wants them in `size`."""
    images, labels, _ = load_pictures(find_pictures(data), size)
    return (probabilities(network, images).argmax(dim=1) == labels).sum().item(), len(labels)


def predict(network: nn.Module, size: int, photos: list[Path]) -> None:
    """Prints a line for each photo. One that cannot be read is an error, and the command's status, but not its end."""
    failed = False
    for photo in photos:
        try:
            answer = probabilities(network, open_picture(photo, size)[None])[0]
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
        else:
            print(f"{photo}: {CLASSES[answer.argmax()]} {answer.max():.1%}", flush=True)
    sys.exit(int(failed))


def compare(script: str, runs: list[Path], data: Path, device: torch.device) -> None:
    """Tests each of the finished `runs` on `data`, keeps what it reached in RESULTS, and draws all that are kept.

    A run takes the place of an earlier one of the same network and recipe.
    """
    table, curves = RESULTS / "cats_dogs.json", RESULTS / "cats_dogs_history.csv"
    results = json.loads(table.read_text(encoding="utf-8")) if table.exists() else {}
    for folder in runs:
        checkpoint = load_checkpoint(folder / "checkpoint.pth", script)
        if checkpoint is None or not checkpoint["finished"]:
            raise ValueError(f"{folder} holds no finished run")
        settings, history = checkpoint["settings"], checkpoint["history"]
        name = f"{settings['network']}_{settings['recipe']}" + ("" if settings["val_percent"] else "_all")
        network, size = load_network(folder / "cats_dogs.pth", device)
        right, count = count_right(network, size, data)
        results[name] = {
            **settings,
            **checkpoint["environment"],
            "parameters": count_parameters(network),
            "epochs": len(history),
            "seconds": sum(row["seconds"] for row in history),
            "right": right,
            "count": count,
            "accuracy": right / count,
        }
        columns = ("epoch", "train_loss", "validation_loss", "validation_accuracy")
        rows = [row for row in read_table(curves) if row["run"] != name]
        rows += [{"run": name, **{column: row.get(column, "") for column in columns}} for row in history]
        RESULTS.mkdir(parents=True, exist_ok=True)
        with write_whole(table) as part:
            part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        write_rows(curves, rows)
    if not results:
        raise ValueError("no run is kept yet: name the folders of finished ones")
    for name, result in results.items():
        print(f"{name}: {result['accuracy']:.2%} ({result['right']}/{result['count']}), {result['epochs']} epochs")
    plot_comparison(read_table(curves))


def smooth(values: list[float]) -> list[float]:
    """The means of so many values each that some sixty are left."""
    together = max(1, len(values) // 60)
    return [mean(values[i : i + together]) for i in range(0, len(values), together)]


def plot_comparison(rows: list[dict[str, str]]) -> None:
    """Draws the error on the pictures kept back, and the losses of training (dashed) and of those, over the epochs.

    Of a long training a point is the mean of some epochs.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in dict.fromkeys(row["run"] for row in rows if row["validation_accuracy"]):
        own = [row for row in rows if row["run"] == name]
        network, recipe = name.split("_")
        label = f"{network}, {'our way' if recipe == 'ours' else 'as in the seed'}"
        epochs, errors, kept_back, training = (
            smooth([float(row[column]) for row in own])
            for column in ("epoch", "validation_accuracy", "validation_loss", "train_loss")
        )
        (line,) = left.plot(epochs, [100 - 100 * accuracy for accuracy in errors], label=label)
        right.plot(epochs, kept_back, color=line.get_color())
        right.plot(epochs, training, color=line.get_color(), linestyle="dashed")
    left.set(title="Error on the pictures kept back, %")
    left.legend(frameon=False)
    right.set(title="Loss on them, and (dashed) in training")
    for axes in (left, right):
        axes.set(xlabel="epoch", xscale="log")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(FIGURE) as part:
        figure.savefig(part, dpi=100)
