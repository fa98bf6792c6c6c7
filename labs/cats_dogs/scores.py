"""What a trained network says of pictures: its file, its answers, and the comparison of the lab's networks."""

import sys
from pathlib import Path
from statistics import mean, median

import torch
from torch import Tensor, nn
from tqdm import tqdm

from labs.cats_dogs.pictures import CLASSES, find_pictures, load_pictures, normalize, open_picture
from labs.cats_dogs.recipes import DEFAULTS, STAGES
from labs.commands import drawing, finished, name_of, to_keep
from labs.weights import load
from lenet import count_parameters
from report.tables import RESULTS, Rows, keep_curves, read_json, read_rows, write_json
from training import Row, save_checkpoint, write_rows

FIGURE = Path(__file__).with_name("curves.png")


def save_network(path: Path, network: nn.Module, name: str, size: int, mirrored: bool = True) -> None:
    """Writes the weights in float16, with what `build` of labs/weights.py makes the network of.

    They are its `name` in NETWORKS, the `size` that it wants pictures in, and whether their mirror images count too.
    """
    weights = {key: value.to("cpu", torch.float16, copy=True) for key, value in network.state_dict().items()}
    save_checkpoint(path, {"network": name, "size": size, "mirrored": mirrored, "weights": weights})


@torch.inference_mode()
def probabilities(network: nn.Module, images: Tensor) -> Tensor:
    """The probabilities of cat and dog, [N, 2], of pictures [N, 3, H, W] (bytes), and their mirrors, if `mirrored`."""
    device = next(network.parameters()).device
    answers = []
    for part in tqdm(images.split(50), "looking", unit="batch", leave=False, disable=None):
        x = normalize(part.to(device))
        looks = [x, x.flip(3)] if network.mirrored else [x]
        answers.append(torch.stack([network(look).softmax(dim=1) for look in looks]).mean(dim=0).cpu())
    return torch.cat(answers)


def confusion(network: nn.Module, data: Path) -> list[list[int]]:
    """How many of the cats in `data` the network takes for cats and for dogs; then how many of the dogs."""
    images, labels, _ = load_pictures(find_pictures(data), network.size)
    answers = probabilities(network, images).argmax(dim=1)
    return torch.bincount(2 * labels + answers, minlength=4).view(2, 2).tolist()


def validate(network: nn.Module, data: Path, table: Path | None) -> None:
    """Prints what the network takes for what, and how much of it is right; into the CSV file `table`, too."""
    counts = confusion(network, data)
    rows = [{"is": name, **dict(zip(CLASSES, row, strict=True))} for name, row in zip(CLASSES, counts, strict=True)]
    for name, row in zip(CLASSES, counts, strict=True):
        print(f"{name}: " + ", ".join(f"{count} taken for {other}" for other, count in zip(CLASSES, row, strict=True)))
    right, count = counts[0][0] + counts[1][1], sum(map(sum, counts))
    print(f"Accuracy: {right / count:.2%} ({right}/{count})")
    if table:
        write_rows(table, rows)


def predict(network: nn.Module, photos: list[Path]) -> None:
    """Prints a line for each photo. One that cannot be read is an error, and the command's status, but not its end."""
    failed = False
    for photo in photos:
        try:
            answer = probabilities(network, open_picture(photo, network.size)[None])[0]
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
        else:
            print(f"{photo}: {CLASSES[answer.argmax()]} {answer.max():.1%}", flush=True)
    sys.exit(int(failed))


def key_of(settings: Row) -> str:
    """The network and recipe of a run, and what else of it is not as usual: other stages, seeds, a --quick one."""
    usual = {**DEFAULTS, "stages": STAGES[settings["recipe"]]}
    told = {name: usual[name] for name in ("stages", "val_percent", "seed", "quick")}
    return name_of(f"{settings['network']}_{settings['recipe']}", settings, told)


def typical_seconds(history: Rows) -> float:
    """Seconds of a training by its median epoch of each size: what else the machine did meanwhile does not count."""
    seconds: dict[int, list[float]] = {}
    for row in history:
        seconds.setdefault(row["size"], []).append(row["seconds"])
    return sum(len(own) * median(own) for own in seconds.values())


def compare(script: str, runs: list[Path], data: Path, device: torch.device) -> None:
    """Tests each of the finished `runs` on `data`, keeps what it reached in RESULTS, and draws all that are kept.

    A run takes the place of an earlier one of the same settings. Raises ValueError if its pictures are others.
    """
    table, curves = (RESULTS / "labs" / name for name in ("cats_dogs.json", "cats_dogs_history.csv"))
    results = read_json(table) if table.exists() else {}
    for folder in runs:
        settings, checkpoint = to_keep(folder, script), finished(folder, script)
        if any(settings["pictures"] != result["pictures"] for result in results.values()):
            raise ValueError(f"{folder} learned other pictures ({settings['pictures']}) than the runs that are kept")
        history = checkpoint["history"]
        name, network = key_of(settings), load("cats_dogs", folder, device)
        counts = confusion(network, data)
        right, count = counts[0][0] + counts[1][1], sum(map(sum, counts))
        if any(count != result["count"] for result in results.values()):
            raise ValueError(f"{data} has other pictures ({count}) than those that the kept runs were tested on")
        results[name] = {
            **settings,
            **checkpoint["environment"],
            "parameters": count_parameters(network),
            "epochs": len(history),
            "seconds": typical_seconds(history),
            "confusion": counts,
            "right": right,
            "count": count,
            "accuracy": right / count,
        }
        columns = ("epoch", "train_loss", "validation_loss", "validation_accuracy")
        write_json(table, results)
        keep_curves(curves, {"run": name}, [{column: row.get(column, "") for column in columns} for row in history])
    if not results:
        raise ValueError("no run is kept yet: name the folders of finished ones")
    for name, result in results.items():
        print(f"{name}: {result['accuracy']:.2%} ({result['right']}/{result['count']}), {result['epochs']} epochs")
    plot_comparison(read_rows(curves))


def smooth(values: list[float]) -> list[float]:
    """The means of so many values each that some sixty are left."""
    together = max(1, len(values) // 60)
    return [mean(values[i : i + together]) for i in range(0, len(values), together)]


def plot_comparison(rows: Rows) -> None:
    """Draws the error on the pictures kept back, and the losses of training (dashed) and of those, over the epochs.

    Of a long training a point is the mean of some epochs.
    """
    with drawing(FIGURE, 11, 4) as figure:
        left, right = figure.subplots(1, 2)
        for name in dict.fromkeys(row["run"] for row in rows if row["validation_accuracy"]):
            own = [row for row in rows if row["run"] == name]
            network, recipe, *others = name.split("_", 2)
            label = ", ".join([network, "our way" if recipe == "ours" else "as in the tutorial", *others])
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
