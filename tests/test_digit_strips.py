"""Strips are made and cut as their labels say, a network learns them, and pictures of strips are read.

The trainings are `--quick`, on real digits; pictures are read with the weights in the repository.
"""

import csv
import json
import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import labs.digit_strips.__main__ as digit_strips
from labs import weights
from labs.digit_strips import search, strips
from labs.digit_strips.search import trials
from labs.digit_strips.strips import CNN, StripPieces, cut, make_strips, one_hot, read_strip
from labs.weights import load
from train_lenet import load_mnist

ROOT = Path(__file__).parent.parent
SMALL = ["train", "--quick", "--epochs", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def digits():
    images, labels = load_mnist(ROOT / "data", train=False)
    return images[:3000], labels[:3000]


@pytest.fixture(scope="module")
def command(digits):
    """Runs the command in this process; gives its exit status or message, and what it printed."""

    def run(*arguments: object) -> tuple[object, str]:
        status = None
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
            if digit_strips.load_mnist is load_mnist:
                patch.setattr(digit_strips, "load_mnist", lambda root, train: digits)
            patch.setattr(sys, "argv", ["digit_strips.py", *map(str, arguments)])
            try:
                digit_strips.main()
            except SystemExit as stop:
                status = stop.code
        return status, printed.getvalue()

    return run


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The folder of a run that nothing interrupted, and what the command printed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    status, printed = command(*SMALL, "--out", out)
    assert status is None
    return out, printed


# Strips and their pieces


@pytest.fixture(scope="module")
def flat():
    """Digits that tell their label: all pixels of an 8 are 8/255."""
    labels = torch.arange(1, 10)
    return (labels / 255).view(-1, 1, 1, 1).expand(-1, 1, 28, 28), labels


def test_a_strip_has_five_places_in_the_order_of_its_labels(flat):
    pictures, labels = make_strips(flat, count=50, seed=0)
    assert (pictures.shape, pictures.dtype, labels.shape) == ((50, 28, 140), torch.uint8, (50, 5))
    assert torch.equal(pictures[:, 0, ::28], labels.where(labels != 10, 0))
    assert torch.equal(pictures[:, 27, 27::28], labels.where(labels != 10, 0))


def test_one_place_in_eleven_is_blank_wherever_it_is(flat):
    _, labels = make_strips(flat, count=10_000, seed=0)
    assert (labels == 10).float().mean(dim=0).tolist() == pytest.approx([1 / 11] * 5, abs=0.01)


def test_strips_depend_on_the_seed_alone(flat):
    first, again, other = (make_strips(flat, count=5, seed=seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_training_has_280000_pieces_and_the_test_10000_strips():
    assert (digit_strips.PIECES, digit_strips.TEST_STRIPS) == (280_000, 10_000)


def test_cutting_all_gives_the_pieces_of_the_dataset(digits):
    pictures, labels = make_strips(digits, count=4, seed=0)
    dataset = StripPieces(pictures, labels)
    assert len(dataset) == 20
    assert torch.equal(torch.stack([piece for piece, _ in dataset]), cut(pictures) / 255)
    assert [label.item() for _, label in dataset] == labels.flatten().tolist()


def test_without_labels_the_dataset_gives_the_pieces_alone(digits):
    pictures, _ = make_strips(digits, count=1, seed=0)
    assert StripPieces(pictures)[4].shape == (1, 28, 28)


def test_one_hot_has_a_1_at_the_label():
    assert one_hot(torch.tensor(10)).tolist() == [0] * 10 + [1]
    assert one_hot(0).tolist() == [1] + [0] * 10


def test_a_data_loader_takes_the_dataset_with_one_hot_labels(digits):
    pieces, targets = next(iter(DataLoader(StripPieces(*make_strips(digits, 2, 0), one_hot), batch_size=7)))
    assert (pieces.shape, targets.shape) == ((7, 1, 28, 28), (7, 11))


# The network and its training


def test_the_network_is_the_seeds():
    network = CNN()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items() if "weight" in name}
    assert shapes == {
        "conv1.weight": (10, 1, 5, 5),
        "conv2.weight": (20, 10, 3, 3),
        "fc1.weight": (500, 2000),
        "fc2.weight": (11, 500),
    }
    assert network(torch.rand(3, 1, 28, 28)).exp().sum(dim=1).tolist() == pytest.approx([1, 1, 1])


def test_training_ends_with_the_strips_and_pieces_read_right(whole):
    out, printed = whole
    result = json.loads((out / "result.json").read_text())
    assert result["pieces_accuracy"] > 0.5
    assert printed.splitlines()[-1] == (
        f"Test strips: {result['strips_accuracy']:.2%} wholly right ({result['strips_right']}/200), "
        f"pieces {1 - result['pieces_wrong'] / 1000:.2%}"
    )


def test_a_run_leaves_weights_that_can_be_read_with_beside_curves_and_strips(whole):
    out, _ = whole
    load("digit_strips", out)
    assert {"curves.png", "history.csv", "strips.png"} <= {path.name for path in out.iterdir()}


def test_a_stopped_training_goes_on_as_if_it_never_was(whole, command, tmp_path, monkeypatch):
    def stop_in_the_second_epoch(*arguments):
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    train_epoch = digit_strips.train_epoch
    monkeypatch.setattr(digit_strips, "train_epoch", stop_in_the_second_epoch)
    assert command(*SMALL, "--out", tmp_path / "run")[0] == 130
    monkeypatch.setattr(digit_strips, "train_epoch", train_epoch)
    command("train", "--out", tmp_path / "run", "--resume", "--device", "cpu")
    assert_same_weights(whole[0], tmp_path / "run")


def test_a_run_is_kept_under_its_settings_and_a_quick_one_is_not(whole, command, tmp_path, monkeypatch):
    assert command("keep", whole[0])[0].startswith(f"error: {whole[0]} is a --quick run")
    monkeypatch.setattr(digit_strips, "RESULTS", tmp_path)
    monkeypatch.setattr(digit_strips, "__file__", str(tmp_path / "__main__.py"))
    (tmp_path / "labs").mkdir()
    for changed in ({}, {"validate": True, "epochs": 2, "lr": 0.001}, digit_strips.RECIPES["tutorial"]):
        recipe = "tutorial" if changed.get("epochs") == 5 else "ours"
        settings = {**digit_strips.DEFAULTS, **changed, "recipe": recipe}
        monkeypatch.setattr(digit_strips, "to_keep", lambda run, script, settings=settings: settings)
        digit_strips.keep(whole[0])
    names = {path.name for path in (tmp_path / "labs").iterdir()}
    assert names == {"digit_strips.json", "digit_strips_epochs2_lr0.001_validate.json", "digit_strips_tutorial.json"}
    assert (tmp_path / "strips.png").read_bytes() == (whole[0] / "strips.png").read_bytes()
    result = json.loads((tmp_path / "labs" / "digit_strips.json").read_text())
    assert {"seed", "seconds", "machine"} <= set(result)
    assert result["pictures"].startswith("MNIST's digits in 600 strips")


def test_a_finished_runs_weights_become_the_shipped_ones(whole, tmp_path, monkeypatch):
    shipped = weights.NETWORKS["digit_strips"]._replace(path=tmp_path / "shipped.pth")
    monkeypatch.setitem(weights.NETWORKS, "digit_strips", shipped)
    monkeypatch.setattr(sys, "argv", ["weights", "keep", "digit_strips", str(whole[0])])
    with pytest.raises(SystemExit, match="is a --quick run"):
        weights.main()
    with monkeypatch.context() as context:
        context.setattr(weights, "to_keep", lambda run, script: {})
        weights.main()
    assert_same_weights(whole[0], tmp_path / "shipped.pth")
    monkeypatch.setattr(sys, "argv", ["weights", "keep", "lenet_original", str(whole[0])])
    with pytest.raises(SystemExit, match="is not a checkpoint of train_lenet.py"):
        weights.main()


def assert_same_weights(one: Path, other: Path) -> None:
    for a, b in zip(*(load("digit_strips", path).parameters() for path in (one, other)), strict=True):
        assert torch.equal(a, b)


def test_training_learns_training_digits_and_is_tested_on_test_digits(monkeypatch, tmp_path, command):
    given = seen_by_training(monkeypatch)
    command("train", "--out", tmp_path / "run")
    assert given == [("train", 6000), ("test", 6000)]


def test_validating_keeps_back_training_digits_and_never_sees_the_test_digits(monkeypatch, tmp_path, command):
    given = seen_by_training(monkeypatch)
    command("train", "--validate", "--out", tmp_path / "run")
    assert given == [("train", 1000), ("train", 5000)]


def seen_by_training(monkeypatch) -> list[tuple[str, int]]:
    """Filled, when the command trains, with the origin and the number of its training and test digits."""
    given = []
    origins = {0: "train", 1: "test"}
    monkeypatch.setattr(
        digit_strips, "load_mnist", lambda root, train: (torch.zeros(6000, 1), torch.full((6000,), int(not train)))
    )
    monkeypatch.setattr(
        digit_strips,
        "train",
        lambda run, *sets: given.extend((origins[labels[0].item()], len(labels)) for _, labels in sets[:2]),
    )
    return given


def test_the_tutorials_recipe_is_plain_sgd_on_pieces_as_they_are(command, tmp_path):
    settings = {**digit_strips.DEFAULTS, **digit_strips.RECIPES["tutorial"], "recipe": "tutorial"}
    _, optimizer, scheduler = digit_strips.begin(settings, 10, torch.device("cpu"))
    assert isinstance(optimizer, torch.optim.SGD) and scheduler.get_last_lr() == [0.001]
    assert optimizer.param_groups[0]["momentum"] == 0.9
    assert (settings["batch_size"], settings["epochs"], settings["augment"]) == (60, 5, 0)
    assert command("train", "--recipe", "tutorial", "--quick", "--out", tmp_path / "run")[0] is None


def test_the_lesson_writes_a_strip_that_can_be_read(command, tmp_path, monkeypatch, network):
    monkeypatch.chdir(tmp_path)
    _, printed = command("lesson")
    label = re.search(r"label (\d+) as one-hot", printed)[1]
    assert read_strip(network, Path("runs/strip.png"))[0] == label == read_strip(network, Path("runs/digit.png"))


def test_the_lesson_shows_that_only_weights_are_loaded_safely(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, printed = command("lesson")
    assert "torch.load(whole.pth, weights_only=True) refuses it" in printed
    assert "this line was printed by the file" in printed
    assert printed.endswith("the same answers: True\n")
    by_label, by_vector = re.search(r"loss by labels ([\d.]+), by one-hot vectors ([\d.]+)", printed).groups()
    assert by_label == by_vector


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--augment", "3"), "argument --augment: must be from 0.0 to 2.0"),
        (("train", "--epochs", "0"), "argument --epochs: must be from 1"),
        (("train", "--device", "tpu"), "unknown device"),
        (("train", "--resume"), "--resume needs --out"),
        (("search", "--folds", "1"), "argument --folds: must be from 2"),
        (("search", "--trials", "0"), "argument --trials: must be from 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(command, arguments, message, capsys):
    status, _ = command(*arguments)
    assert re.search(f"error: {message}[^\n]*$", capsys.readouterr().err.strip() if status == 2 else status)


# Pictures that are read


@pytest.fixture(scope="module")
def network():
    return load("digit_strips")


@pytest.fixture(scope="module")
def grey(digits):
    """A strip as MNIST has it, [28, 140] bytes: 7 2 (blank) 0 4."""
    places = (digits[0][:5, 0] * 255).byte()
    places[2] = 0
    return np.concatenate(list(places.numpy()), axis=1)


def save(path: Path, picture: np.ndarray, size: tuple[int, int]) -> Path:
    Image.fromarray(picture).resize(size).save(path)
    return path


@pytest.mark.parametrize("size", [(140, 28), (500, 100), (1203, 240), (640, 120), (92, 20)])
def test_a_picture_of_any_size_is_read(network, grey, tmp_path, size):
    assert read_strip(network, save(tmp_path / "a.png", grey, size)) == "72_04"


@pytest.mark.parametrize("places", [1, 2, 3, 4, 5])
def test_one_to_five_places_are_told_by_the_shape(network, grey, tmp_path, places):
    path = save(tmp_path / "a.png", grey[:, : 28 * places], (60 * places, 60))
    assert read_strip(network, path) == "72_04"[:places]


@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ((0, 0, 0), (255, 255, 255)),
        ((90, 90, 90), (160, 160, 160)),
        ((255, 230, 0), (255, 255, 255)),
        ((0, 0, 200), (0, 90, 0)),
    ],
)
def test_ink_and_paper_may_have_any_shade_or_colour(network, grey, tmp_path, ink, paper):
    share = grey[..., None] / 255
    picture = (share * ink + (1 - share) * paper).round().astype(np.uint8)
    assert read_strip(network, save(tmp_path / "a.jpg", picture, (560, 112))) == "72_04"


def test_blank_paper_has_only_blank_places(network, tmp_path):
    noise = np.random.default_rng(0).integers(235, 256, size=(60, 300), dtype=np.uint8)
    assert read_strip(network, save(tmp_path / "a.jpg", noise, (300, 60))) == "_____"


def test_digits_that_lie_beside_the_middle_of_their_places_are_read_as_well(network, digits, tmp_path):
    made, labels = make_strips(digits, count=40, seed=1)
    in_place = [read_strip(network, save(tmp_path / "a.png", strip.numpy(), (140, 28))) for strip in made]
    for rows, columns in ((0, 4), (0, -4), (4, 0), (-3, -3)):
        shifted = made.roll((rows, columns), dims=(1, 2))
        read = [read_strip(network, save(tmp_path / "a.png", strip.numpy(), (140, 28))) for strip in shifted]
        assert sum(one == other for one, other in zip(read, in_place, strict=True)) >= 38


def test_a_picture_in_which_there_can_be_no_digits_is_warned_of(network, capsys):
    read_strip(network, ROOT / "car.jpg")
    said = capsys.readouterr().err
    assert re.fullmatch("warning: only 35% of a place in [^\n]+: is it a strip of digits on even paper\\?\n", said)


def test_reading_prints_the_digits_alone(command, grey, tmp_path):
    assert command("read", save(tmp_path / "a.png", grey, (280, 56))) == (None, "72_04\n")


@pytest.mark.parametrize("size", [(600, 100), (40, 100)])
def test_a_picture_that_is_no_strip_is_refused(command, tmp_path, grey, size):
    status, _ = command("read", save(tmp_path / "a.png", grey, size))
    assert re.fullmatch(f"error: [^\n]+a.png has {size[0]}x{size[1]} pixels: a strip is [^\n]+", status)


def test_a_file_that_is_no_picture_is_refused(command, tmp_path):
    (tmp_path / "a.png").write_text("hello")
    assert re.fullmatch("error: [^\n]+a.png is not a picture [^\n]+", command("read", tmp_path / "a.png")[0])


def test_a_missing_picture_is_refused(command, tmp_path):
    assert re.fullmatch("error: there is no picture [^\n]+", command("read", tmp_path / "a.png")[0])


def test_missing_weights_are_refused(command, tmp_path):
    status, _ = command("read", "a.png", "--model", tmp_path / "a.pth")
    assert re.fullmatch("error: there are no weights [^\n]+", status)


@pytest.mark.parametrize("held", [b"hello", b"the weights", b"", "model.pth", "labs/weights.py"])
def test_a_file_of_anything_else_is_refused_as_weights(command, tmp_path, held):
    path = tmp_path / "a.pth"
    path.write_bytes(held if isinstance(held, bytes) else (ROOT / held).read_bytes())
    status, _ = command("read", "a.png", "--model", path)
    assert re.fullmatch("error: [^\n]+a.pth does not hold the weights of digit_strips[^\n]+", status)


# The search


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_grid_goes_through_the_learning_rates_first_and_then_the_optimizers():
    points = trials("grid", 12)
    assert [point["lr"] for point in points] == [*search.SPACE["lr"]] * 2
    assert [point["optimizer"] for point in points] == ["sgd"] * 6 + ["adam"] * 6


def test_a_random_search_begins_as_a_shorter_one_and_tries_nothing_twice():
    points = trials("random", 30)
    assert points[:8] == trials("random", 8)
    assert len({point["lr"] for point in points}) > 20


def test_a_search_that_is_stopped_goes_on_with_the_trial_that_it_was_in(command, tmp_path, monkeypatch):
    def stop_in_the_second_trial(settings, digits, fold, *_):
        tried.append((settings["lr"], fold))
        if len(tried) == 4:
            raise KeyboardInterrupt
        return 0.5 + settings["lr"]

    tried = []
    monkeypatch.setattr(search, "fold_accuracy", stop_in_the_second_trial)
    asked = ["search", "--method", "grid", "--quick", "--out", tmp_path]
    assert command(*asked)[0] == 130
    assert [row["lr"] for row in table(tmp_path / "grid.csv")] == ["0.0003"]
    command(*asked)
    assert tried == [(0.0003, 0), (0.0003, 1), (0.001, 0), (0.001, 1), (0.001, 0), (0.001, 1)]
    (best,) = table(tmp_path / "grid_best.csv")
    assert (best["lr"], best["accuracy"]) == ("0.001", "0.501")


def test_a_search_leaves_its_table_its_best_row_and_the_valley(command, tmp_path):
    status, printed = command("search", "--quick", "--out", tmp_path)
    assert status is None and "Best of 2: trial " in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["random.csv", "random.png", "random_best.csv"]
    assert len(table(tmp_path / "random.csv")) == 2


def test_a_search_is_kept_with_its_best_row_and_its_valley(tmp_path, monkeypatch):
    rows = "trial,lr,optimizer,accuracy,spread\n1,0.1,sgd,0.5,0.1\n2,0.01,adam,0.9,0.1\n"
    (tmp_path / "grid.csv").write_text(rows)
    monkeypatch.setattr(search, "RESULTS", tmp_path)
    monkeypatch.setattr(search, "__file__", str(tmp_path / "search.py"))
    (tmp_path / "labs").mkdir()
    digit_strips.keep(tmp_path / "grid.csv")
    assert (tmp_path / "labs" / "digit_strips_grid.csv").read_text() == rows
    assert [row["trial"] for row in table(tmp_path / "labs" / "digit_strips_grid_best.csv")] == ["2"]
    assert (tmp_path / "grid.png").exists()


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("grid.csv", ""),
        ("random.csv", "trial,accuracy\n1,0.5\n"),
        ("a.csv", "lr,optimizer,accuracy,spread\n1,sgd,1,0\n"),
    ],
)
def test_another_table_is_not_kept_as_a_search(tmp_path, monkeypatch, name, held):
    monkeypatch.setattr(search, "RESULTS", tmp_path / "results")
    (tmp_path / name).write_text(held)
    with pytest.raises(ValueError, match=f"{name} is not the grid.csv or random.csv of a search$"):
        digit_strips.keep(tmp_path / name)


def test_a_quick_search_is_not_kept(tmp_path):
    (tmp_path / "grid.csv").write_text("lr,optimizer,accuracy,spread,folds,pieces\n1,sgd,1,0,2,500\n")
    with pytest.raises(ValueError, match="grid.csv is a --quick search"):
        digit_strips.keep(tmp_path / "grid.csv")


def test_a_search_with_other_folds_does_not_touch_the_table(command, tmp_path):
    (tmp_path / "random.csv").write_text("trial,folds,pieces\n1,5,6000\n")
    status, _ = command("search", "--out", tmp_path)
    assert re.fullmatch("error: [^\n]+random.csv holds a search with other --folds or --pieces[^\n]+", status)
    assert (tmp_path / "random.csv").read_text() == "trial,folds,pieces\n1,5,6000\n"


def test_no_digit_of_a_validation_fold_is_trained_on(monkeypatch, digits):
    def note(part, count, seed):
        parts.append({image.numpy().tobytes() for image in part[0]})
        return strips.make_strips(part, count, seed)

    parts = []
    monkeypatch.setattr(search, "make_strips", note)
    settings = {"lr": 0.01, "optimizer": "sgd", "momentum": 0.9, "batch_size": 60, "epochs": 1}
    few = digits[0][:90], digits[1][:90]
    for fold in range(3):
        search.fold_accuracy(settings, few, fold, 3, 50, torch.device("cpu"))
    assert [(len(trained), len(held)) for trained, held in zip(parts[::2], parts[1::2], strict=True)] == [(60, 30)] * 3
    assert not any(trained & held for trained, held in zip(parts[::2], parts[1::2], strict=True))
    assert len(set.union(*parts[1::2])) == 90


def test_a_training_that_diverges_reads_nothing_right(digits):
    settings = {"lr": 1e30, "optimizer": "sgd", "momentum": 0, "batch_size": 60, "epochs": 1}
    assert search.fold_accuracy(settings, digits, 0, 2, 200, torch.device("cpu")) == 0
