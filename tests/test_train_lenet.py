"""The digits arrive whole, the network learns, and a run survives whatever kills it.

The runs are real processes of `train_lenet.main` on a few real digits, forked from one that has imported PyTorch.
"""

import contextlib
import csv
import functools
import gzip
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import matplotlib.figure
import pytest
import torch
from conftest import LINUX, Ended, ended
from PIL import Image
from torch.optim.lr_scheduler import OneCycleLR

import train_lenet
import training
from lenet import LeNet5, LeNet5Original
from train_lenet import Batches, evaluate, load_mnist, random_affine, train_epoch

ROOT = Path(__file__).parent.parent
RAW = ROOT / "data" / "MNIST" / "raw"
RESOURCES = [(f"{name}.gz", md5) for name, (md5, _) in train_lenet.MNIST_FILES.items()]
SMALL = ["--epochs", "3", "--batch-size", "50", "--device", "cpu"]
FILES = ["checkpoint.pth", "confusion.png", "curves.png", "history.csv", "lenet.pth", "mistakes.png"]
no_signals = pytest.mark.skipif(os.name == "nt", reason="Windows cannot send a process this signal")

Digits = tuple[torch.Tensor, torch.Tensor]


# MNIST


@pytest.fixture(scope="module")
def train_digits() -> Digits:
    return load_mnist(ROOT / "data", train=True)


@pytest.fixture(scope="module")
def test_digits() -> Digits:
    return load_mnist(ROOT / "data", train=False)


@pytest.fixture
def archives(tmp_path, monkeypatch) -> Path:
    """A data folder with copies of the four archives and nothing else, on a machine without a network."""

    def no_network(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in RAW.glob("*.gz"):
        shutil.copy(archive, raw)
    return tmp_path


@pytest.mark.parametrize(("digits", "count"), [("train_digits", 60_000), ("test_digits", 10_000)])
def test_mnist_is_28x28_floats_from_0_to_1_and_labels_from_0_to_9(request, digits, count):
    images, labels = request.getfixturevalue(digits)
    assert (images.shape, images.dtype) == ((count, 1, 28, 28), torch.float32)
    assert (images.min(), images.max()) == (0, 1)
    assert (labels.shape, labels.dtype) == ((count,), torch.int64)
    assert labels.unique().tolist() == list(range(10))


@pytest.mark.parametrize(("digits", "first"), [("train_digits", [5, 0, 4, 1, 9]), ("test_digits", [7, 2, 1, 0, 4])])
def test_the_first_labels_are_mnists(request, digits, first):
    assert request.getfixturevalue(digits)[1][:5].tolist() == first


def test_the_background_is_0_and_the_ink_1(train_digits):
    images, _ = train_digits
    assert images[:1000, :, 0].mean() < 0.01 < images[:1000, :, 14].mean()


def test_the_archives_are_all_that_mnist_needs(archives):
    images, labels = load_mnist(archives, train=False)
    assert (len(images), labels[:5].tolist()) == (10_000, [7, 2, 1, 0, 4])


def test_nothing_is_written_where_the_archives_are(archives):
    load_mnist(archives, train=True)
    assert sorted(path.name for path in archives.rglob("*") if path.is_file()) == sorted(
        p.name for p in RAW.glob("*.gz")
    )


@pytest.mark.parametrize("folder", ["MNIST", "MNIST/raw"])
def test_the_folder_of_the_archives_itself_will_do(archives, folder):
    assert len(load_mnist(archives / folder, train=False)[0]) == 10_000
    assert [path.name for path in archives.iterdir()] == ["MNIST"]


def test_files_that_somebody_has_unpacked_will_do_without_their_archives(archives, test_digits):
    for archive in (archives / "MNIST" / "raw").iterdir():
        archive.with_suffix("").write_bytes(gzip.decompress(archive.read_bytes()))
        archive.unlink()
    assert all(map(torch.equal, load_mnist(archives, train=False), test_digits))


def test_an_unpacked_file_that_was_cut_short_is_not_read(archives, test_digits):
    (archives / "MNIST" / "raw" / "t10k-images-idx3-ubyte").write_bytes(b"\0" * 1000)
    assert torch.equal(load_mnist(archives, train=False)[0], test_digits[0])


def test_fashion_mnist_under_the_same_names_is_not_taken_for_mnist(archives, monkeypatch):
    labels = archives / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(bytes(8) + bytes(10_000)))
    assert str(labels) in command_error(monkeypatch, "--data", archives)


def test_the_repositorys_own_digits_are_found_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_lenet.py"])
    assert len(load_mnist(train_lenet.parse_arguments().data, train=False)[0]) == 10_000


def test_a_download_that_fails_leaves_no_folder_behind(archives, monkeypatch):
    command_error(monkeypatch, "--data", archives / "elsewhere")
    assert not (archives / "elsewhere").exists()


def test_what_is_downloaded_is_torchvisions_four_archives(archives, tmp_path, monkeypatch, test_digits):
    def download(root: str, download: bool) -> None:
        shutil.copytree(archives / "MNIST", Path(root, "MNIST"))

    monkeypatch.setattr("torchvision.datasets.MNIST", download)
    assert torch.equal(load_mnist(tmp_path / "new", train=False)[0], test_digits[0])
    assert sorted(path.name for path in (tmp_path / "new" / "MNIST" / "raw").iterdir()) == sorted(
        path.name for path in RAW.glob("*.gz")
    )


def test_the_archives_and_their_checksums_are_torchvisions():
    from torchvision.datasets import MNIST  # not at the top: every process of these tests would load it

    assert MNIST.resources == RESOURCES


def command_error(monkeypatch, *arguments: object) -> str:
    """The one line with which the command ends when it is given `arguments`."""
    monkeypatch.setattr(sys, "argv", ["train_lenet.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        train_lenet.main()
    assert re.fullmatch("error: [^\n]+", stop.value.code)
    return stop.value.code


@pytest.mark.parametrize(("name", "md5"), RESOURCES)
def test_a_damaged_archive_is_named_with_its_md5_and_its_place(archives, monkeypatch, name, md5):
    damaged = archives / "MNIST" / "raw" / name
    damaged.write_bytes(damaged.read_bytes()[:-1])
    message = command_error(monkeypatch, "--data", archives)
    assert f"{damaged} (MD5 {md5})" in message
    assert [other for other, _ in RESOURCES if other in message] == [name]


def test_a_missing_archive_is_named_with_its_md5_and_its_place(archives, monkeypatch):
    missing = archives / "MNIST" / "raw" / "train-labels-idx1-ubyte.gz"
    missing.unlink()
    message = command_error(monkeypatch, "--data", archives)
    assert f"{missing} (MD5 d53e105ee54ea40749a09fcbcd1e9432)" in message


def test_all_four_archives_are_named_where_there_is_none(archives, monkeypatch):
    message = command_error(monkeypatch, "--data", archives / "elsewhere")
    assert all(f"{name} (MD5 {md5})" in message for name, md5 in RESOURCES)


def test_what_torchvision_prints_about_its_mirrors_is_not_shown(archives, monkeypatch, capsys):
    command_error(monkeypatch, "--data", archives / "elsewhere")
    assert capsys.readouterr() == ("", "")


def test_a_data_folder_that_is_a_file_is_an_error(archives, monkeypatch):
    (archives / "file").touch()
    assert str(archives / "file") in command_error(monkeypatch, "--data", archives / "file")


def test_a_disk_that_is_full_while_mnist_is_downloaded_is_an_error(archives, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torchvision.datasets.MNIST", lambda root, download: None)
    monkeypatch.setattr("shutil.copyfile", full)
    assert "No space left on device" in command_error(monkeypatch, "--data", archives / "elsewhere")


# Distortions and batches


def test_distortions_keep_the_shape_and_the_range_of_the_images(train_digits):
    images = train_digits[0][:500]
    distorted = random_affine(images, torch.Generator().manual_seed(0))
    assert distorted.shape == images.shape
    assert distorted.min() >= 0 and distorted.max() <= 1 + 1e-5


def test_distortions_are_the_same_for_the_same_generator(train_digits):
    images = train_digits[0][:20]
    assert torch.equal(*(random_affine(images, torch.Generator().manual_seed(1)) for _ in range(2)))


def test_every_image_gets_a_distortion_of_its_own(train_digits):
    images = train_digits[0][:1].expand(20, 1, 28, 28)
    assert len(random_affine(images, torch.Generator().manual_seed(0)).unique(dim=0)) == 20


def test_distortions_of_no_size_change_nothing(train_digits, monkeypatch):
    images = train_digits[0][:20]
    monkeypatch.setattr(torch, "rand", lambda count, generator: torch.full((count,), 0.5))
    torch.testing.assert_close(random_affine(images, torch.Generator()), images, atol=1e-4, rtol=0)


def test_distortions_are_small_enough_to_leave_the_ink_in_the_picture(train_digits):
    images = train_digits[0][:500]
    ink = random_affine(images, torch.Generator().manual_seed(0)).sum(dim=(1, 2, 3)) / images.sum(dim=(1, 2, 3))
    assert ink.min() > 0.6 and ink.max() < 1.6


def test_the_digits_are_shifted_in_both_directions_independently():
    shift_x, shift_y = train_lenet.random_maps(500, torch.Generator().manual_seed(0))[:, :, 2].T
    assert torch.corrcoef(torch.stack([shift_x, shift_y]))[0, 1].abs() < 0.2
    assert all(0.11 < shift.abs().max() <= 0.12 for shift in (shift_x, shift_y))


def numbered(count: int) -> Digits:
    """Images that are each their own number, with the same number for a label."""
    return torch.arange(float(count)).view(count, 1, 1, 1), torch.arange(count)


def test_without_a_generator_batches_come_in_order_the_last_one_smaller():
    batches = Batches(*numbered(10), batch_size=4)
    assert [labels.tolist() for _, labels in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(batches) == 3


def test_with_a_generator_each_digit_comes_once_in_an_order_that_changes():
    batches = Batches(*numbered(50), batch_size=8, generator=torch.Generator().manual_seed(0))
    passes = [torch.cat([labels for _, labels in batches]) for _ in range(2)]
    assert [order.sort().values.tolist() for order in passes] == [list(range(50))] * 2
    assert not torch.equal(*passes)


def test_an_image_keeps_its_label_in_every_order():
    for images, labels in Batches(*numbered(50), batch_size=8, generator=torch.Generator().manual_seed(0)):
        assert images.flatten().tolist() == labels.tolist()


def test_distortions_are_made_on_whole_batches_with_the_epochs_generator():
    generator, seen = torch.Generator().manual_seed(0), []

    def shift(images: torch.Tensor, given: torch.Generator) -> torch.Tensor:
        seen.append((len(images), given))
        return images + 100

    for images, labels in Batches(*numbered(10), batch_size=4, generator=generator, augment=shift):
        assert images.flatten().tolist() == (labels + 100).tolist()
    assert seen == [(4, generator), (4, generator), (2, generator)]


# The loop


@pytest.mark.parametrize(("name", "network", "least"), [("modern", LeNet5, 0.9), ("original", LeNet5Original, 0.75)])
def test_one_epoch_on_five_thousand_real_digits_is_enough(train_digits, test_digits, name, network, least):
    torch.manual_seed(0)
    model, loss_function = train_lenet.make_network(name)
    assert isinstance(model, network)
    optimizer = torch.optim.AdamW(model.parameters())
    batches = Batches(train_digits[0][:5000], train_digits[1][:5000], 25, torch.Generator().manual_seed(0))
    scheduler = OneCycleLR(optimizer, max_lr=0.006, total_steps=len(batches))
    train_epoch(model, batches, loss_function, optimizer, scheduler)
    test_batches = Batches(test_digits[0][:2000], test_digits[1][:2000], 1000)
    assert evaluate(model, test_batches, loss_function)[1] > least


class Oracle(torch.nn.Module):
    """Scores 1 for digit 0 and 0 for the others, whatever it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = torch.nn.Parameter(torch.eye(10)[0])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scores.expand(len(images), 10)


def mean_label(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return labels.float().mean() + 0 * logits.sum()


def test_loss_and_accuracy_are_means_over_digits_not_over_batches():
    batches = [(torch.zeros(3, 1), torch.tensor([0, 0, 0])), (torch.zeros(1, 1), torch.tensor([8]))]
    assert evaluate(Oracle(), batches, mean_label) == (2, 0.75)
    model = Oracle()
    assert train_epoch(model, batches, mean_label, torch.optim.SGD(model.parameters(), lr=0.1)) == (2, 0.75)


def test_evaluating_changes_nothing_and_keeps_no_graph(test_digits):
    model = LeNet5()
    before = [parameter.clone() for parameter in model.parameters()]
    evaluate(model, [(test_digits[0][:10], test_digits[1][:10])], torch.nn.functional.cross_entropy)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


def test_a_loss_that_is_no_number_stops_before_the_weights_are_touched():
    def loss_function(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return logits.sum() * (torch.nan if labels[0] == 2 else 1)

    model = Oracle()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    batches = [(torch.zeros(1, 1), torch.tensor([label])) for label in range(5)]
    with pytest.raises(FloatingPointError, match="nan at epoch 7, step 3, learning rate 0.25"):
        train_epoch(model, batches, loss_function, optimizer, epoch=7)
    assert model.scores.isfinite().all()


def test_each_step_follows_the_gradient_of_its_own_batch_alone():
    model = Oracle()
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    batches = [(torch.zeros(1, 1), torch.tensor([digit])) for digit in (3, 5)]
    train_epoch(model, batches, lambda logits, labels: -logits[0, labels[0]], optimizer)
    expected = torch.eye(10)[0] + torch.eye(10)[3] + torch.eye(10)[5]
    assert torch.equal(model.scores.detach(), expected)


# Whole runs


def lenet(digits: Path, arguments: list[str], prepare: Callable[[], None]) -> None:
    """The command, in a process of its own: it trains on the few digits of a file, and tests on others there.

    `prepare` arranges what will happen to it.
    """
    sets = torch.load(digits, weights_only=True)
    train_lenet.load_mnist = lambda root, train: sets["train" if train else "test"]
    train_lenet.VALIDATION_DIGITS = 200
    prepare()
    sys.argv = ["train_lenet.py", *arguments]
    train_lenet.main()


def draw_everything() -> None:
    pass


def draw_nothing() -> None:
    """Leaves empty files for pictures, which take longer to draw than these runs to train."""
    matplotlib.figure.Figure.savefig = lambda figure, path, **_: path.touch()
    train_lenet.plot_mistakes = functools.partial(train_lenet.plot_mistakes, most=1)


@pytest.fixture(scope="module")
def start_lenet(start, tmp_path_factory, train_digits, test_digits):
    """start_lenet(folder, *arguments) starts the command as a process, working in `folder`."""
    digits = tmp_path_factory.mktemp("digits") / "digits.pt"
    sets = {"train": (train_digits, 1000), "test": (test_digits, 300)}
    torch.save({name: tuple(part[:count].clone() for part in both) for name, (both, count) in sets.items()}, digits)

    def start_lenet(folder: Path, *arguments: str, prepare: Callable[[], None] = draw_nothing):
        return start(folder, functools.partial(lenet, digits, list(arguments), prepare))

    return start_lenet


@pytest.fixture(scope="module")
def run(start_lenet):
    """run(folder, *arguments) runs the command as a process, working in `folder`, to its end."""

    def run(folder: Path, *arguments: str, prepare: Callable[[], None] = draw_nothing) -> Ended:
        return ended(start_lenet(folder, *arguments, prepare=prepare), folder)

    return run


def die_before_file(number: int) -> None:
    """Kills this process when a file, the `number`th that it writes, is about to take its place."""
    draw_nothing()
    replace, calls = os.replace, []

    def replace_or_die(*paths: Path) -> None:
        calls.append(paths)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)

    training.os.replace = replace_or_die


@pytest.fixture(scope="module")
def whole(tmp_path_factory, run) -> tuple[Path, Ended]:
    """A run of three epochs that nothing interrupted: its folder, and how it ended."""
    folder = tmp_path_factory.mktemp("whole")
    ended = run(folder, *SMALL, "--out", "run", prepare=draw_everything)
    assert (ended.status, ended.error) == (0, "")
    return folder / "run", ended


@pytest.fixture
def halfway(tmp_path, whole, started) -> Path:
    """A folder with a run of the same settings, `run`, that was killed after its first epoch."""
    shutil.copytree(started, tmp_path / "run")
    return tmp_path


@pytest.fixture(scope="module")
def started(tmp_path_factory, start_lenet) -> Path:
    if os.name == "nt":
        pytest.skip("Windows cannot kill a process at a chosen file")
    folder = tmp_path_factory.mktemp("started")
    start_lenet(folder, *SMALL, "--out", "run", prepare=functools.partial(die_before_file, 3)).join()
    assert len(rows(folder / "run")) == 1
    return folder / "run"


def rows(run_folder: Path) -> list[dict[str, str]]:
    """The rows of a run's history, without the seconds."""
    with (run_folder / "history.csv").open(newline="") as file:
        return [{name: row[name] for name in row if name != "seconds"} for row in csv.DictReader(file)]


def result(run_folder: Path) -> tuple[bytes, list[dict[str, str]]]:
    """What must be the same to the bit in two equal runs."""
    return (run_folder / "lenet.pth").read_bytes(), rows(run_folder)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def one_error(ended: Ended) -> str:
    assert ended.status == 1
    assert re.fullmatch("error: [^\n]+\n", ended.error)
    return ended.error


def test_a_run_leaves_its_six_files_and_no_other(whole):
    assert sorted(path.name for path in whole[0].iterdir()) == FILES


def test_the_history_has_a_row_an_epoch_with_loss_and_accuracy_of_both_sets(whole):
    names = ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]
    assert [list(row) for row in rows(whole[0])] == [names] * 3
    assert [row["epoch"] for row in rows(whole[0])] == ["1", "2", "3"]


def test_every_epoch_prints_one_line(whole):
    pattern = r"epoch (\d)/3: train loss [\d.]+, train accuracy [\d.]+%, test accuracy [\d.]+%, [\d.]+ s"
    lines = [line for line in whole[1].out.splitlines() if line.startswith("epoch")]
    assert [re.fullmatch(pattern, line)[1] for line in lines] == ["1", "2", "3"]


def test_the_last_line_is_the_last_epochs_accuracy(whole):
    percent, right = re.fullmatch(r"Test accuracy: ([\d.]+)% \((\d+)/300\)", whole[1].out.splitlines()[-1]).groups()
    assert percent == f"{int(right) / 3:.2f}"
    assert float(rows(whole[0])[-1]["test_accuracy"]) == pytest.approx(int(right) / 300, abs=1e-6)


def test_the_network_that_is_left_has_the_accuracy_that_was_printed(whole, test_digits):
    model = LeNet5()
    model.load_state_dict(torch.load(whole[0] / "lenet.pth", weights_only=True))
    batches = [(test_digits[0][:300], test_digits[1][:300])]
    accuracy = evaluate(model, batches, torch.nn.functional.cross_entropy)[1]
    assert f"Test accuracy: {accuracy:.2%}" in whole[1].out


def test_the_rate_rises_to_the_default_and_falls_to_nearly_nothing(whole):
    group = torch.load(whole[0] / "checkpoint.pth", weights_only=True)["optimizer"]["param_groups"][0]
    assert group["max_lr"] == 0.012
    assert group["lr"] < 1e-4  # 4.8e-8 at the last step, and the scheduler has gone on by one


@pytest.mark.parametrize("name", ["confusion.png", "curves.png", "mistakes.png"])
def test_the_pictures_open(whole, name):
    with Image.open(whole[0] / name) as picture:
        picture.load()
        assert picture.format == "PNG" and min(picture.size) > 200


def test_pictures_are_drawn_when_nothing_was_read_wrong(tmp_path, test_digits):
    images, labels = (part[:3] for part in test_digits)
    train_lenet.plot_confusion(tmp_path / "confusion.png", labels, labels)
    train_lenet.plot_mistakes(tmp_path / "mistakes.png", images, labels, torch.eye(10)[labels])
    assert len(list(tmp_path.iterdir())) == 2


def drawn(monkeypatch, function: Callable, *arguments: object) -> list[str]:
    """Every text in the figure that `function` draws."""
    figures = []
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda figure, path, **_: (figures.append(figure), path.touch())
    )
    function(*arguments)
    axes = figures[0].axes
    texts = [text.get_text() for panel in axes for text in panel.texts]
    return [figures[0].get_suptitle(), *(panel.get_title() for panel in axes), *texts]


def test_the_confusion_matrix_counts_digits_by_row_and_readings_by_column(tmp_path, monkeypatch):
    labels, predictions = torch.tensor([4, 4, 4, 9]), torch.tensor([9, 9, 4, 9])
    texts = drawn(monkeypatch, train_lenet.plot_confusion, tmp_path / "a.png", labels, predictions)
    assert texts == ["", "Mistakes: 2 of 4", "1", "2", "1"]


def test_the_mistakes_are_the_wrong_ones_the_surest_first_with_digit_and_reading(tmp_path, monkeypatch):
    labels, scores = torch.tensor([1, 2, 3]), torch.zeros(3, 10)
    scores[0, 1], scores[1, 7], scores[2, 8] = 9, 1, 5
    texts = drawn(monkeypatch, train_lenet.plot_mistakes, tmp_path / "a.png", torch.zeros(3, 1, 28, 28), labels, scores)
    assert texts[0].startswith("Mistakes: 2 of 2")
    assert texts[1:4] == ["3 read as 8", "2 read as 7", ""]


def test_the_same_seed_gives_the_same_bits(run, whole, tmp_path):
    run(tmp_path, *SMALL, "--out", "again", "--seed", "0")
    assert result(tmp_path / "again") == result(whole[0])


def test_another_seed_gives_others(run, whole, tmp_path):
    run(tmp_path, *SMALL, "--out", "other", "--seed", "1")
    assert result(tmp_path / "other")[0] != result(whole[0])[0]


def test_validating_reports_on_the_digits_kept_back_and_never_on_the_test_set(run, tmp_path):
    ended = run(tmp_path, *SMALL[2:], "--epochs", "1", "--validate", "--out", "run", prepare=poison_the_test_set)
    assert ended.error == ""
    assert re.fullmatch(r"Validation accuracy: [\d.]+% \(\d+/200\)", ended.out.splitlines()[-1])
    assert list(rows(tmp_path / "run")[0])[3:] == ["validation_loss", "validation_accuracy"]
    assert "test" not in ended.out


def poison_the_test_set() -> None:
    draw_nothing()
    load = train_lenet.load_mnist
    poison = torch.full((300, 1, 28, 28), torch.nan), torch.full((300,), 99)
    train_lenet.load_mnist = lambda root, train: load(root, train) if train else poison


def test_validating_keeps_back_the_last_5000_digits(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(train_lenet, "load_mnist", lambda root, train: numbered(60_000 if train else 10_000))
    monkeypatch.setattr(train_lenet, "train", lambda run, *sets: seen.extend(sets[:2]))
    monkeypatch.setattr(sys, "argv", ["train_lenet.py", "--validate", "--out", str(tmp_path / "run")])
    train_lenet.main()
    assert [(labels[0].item(), labels[-1].item()) for _, labels in seen] == [(0, 54_999), (55_000, 59_999)]


def test_every_epoch_goes_through_the_digits_in_another_order(monkeypatch, tmp_path):
    def note_order(model, batches, *_):
        orders.append(torch.cat([labels for _, labels in batches]).tolist())
        return 1.0, 0.5

    orders = []
    digits = torch.zeros(100, 1, 28, 28), torch.arange(100) % 10
    monkeypatch.setattr(train_lenet, "load_mnist", lambda root, train: digits)
    monkeypatch.setattr(train_lenet, "train_epoch", note_order)
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda figure, path, **_: path.touch())
    monkeypatch.setattr(
        sys, "argv", ["train_lenet.py", "--epochs", "2", "--no-augment", "--out", str(tmp_path / "run")]
    )
    train_lenet.main()
    assert len(orders) == 2 and orders[0] != orders[1]


def test_no_augment_trains_on_the_digits_as_they_are(run, tmp_path):
    ended = run(tmp_path, *SMALL[2:], "--epochs", "1", "--no-augment", "--out", "run", prepare=forbid_distortions)
    assert (ended.status, ended.error) == (0, "")


def forbid_distortions() -> None:
    def forbidden(*_):
        raise AssertionError("distorted in spite of --no-augment")

    draw_nothing()
    train_lenet.random_affine = forbidden


def test_the_original_network_can_be_trained(run, tmp_path):
    ended = run(tmp_path, *SMALL[2:], "--epochs", "1", "--model", "original", "--out", "run")
    assert (ended.status, ended.error) == (0, "")
    LeNet5Original().load_state_dict(torch.load(tmp_path / "run" / "lenet.pth", weights_only=True))


# Runs that are killed, stopped and resumed


@no_signals
def test_a_run_killed_before_each_of_its_files_in_turn_ends_as_if_it_never_was(run, whole, tmp_path):
    killed = 0
    while run(tmp_path, *SMALL, "--out", "run", "--resume", prepare=functools.partial(die_before_file, killed + 1))[0]:
        killed += 1
        assert killed < 20
    assert killed >= 5
    assert result(tmp_path / "run") == result(whole[0])
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == FILES


class Forgetful(LeNet5):
    """LeNet-5 with a Dropout before its output, as the README invites to try."""

    def __init__(self) -> None:
        super().__init__()
        self.output = torch.nn.Sequential(torch.nn.Dropout(0.5), self.output)


def with_dropout(prepare: Callable[[], None]) -> None:
    prepare()
    train_lenet.LeNet5 = Forgetful


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory, run) -> tuple[Path, Ended]:
    folder = tmp_path_factory.mktemp("forgetful")
    return folder / "run", run(folder, *SMALL, "--out", "run", prepare=functools.partial(with_dropout, draw_nothing))


@no_signals
@pytest.mark.parametrize("files", [3, 7], ids=["after its first epoch", "after its last epoch"])
def test_a_network_with_dropout_ends_as_if_it_was_never_killed(start_lenet, run, forgetful, tmp_path, files):
    die = functools.partial(with_dropout, functools.partial(die_before_file, files))
    start_lenet(tmp_path, *SMALL, "--out", "run", prepare=die).join()
    assert len(rows(tmp_path / "run")) == files // 2
    ended = run(tmp_path, *SMALL, "--out", "run", "--resume", prepare=functools.partial(with_dropout, draw_nothing))
    assert ended.out.splitlines()[-1] == forgetful[1].out.splitlines()[-1]
    assert result(tmp_path / "run") == result(forgetful[0])


def test_the_last_accuracy_is_that_of_the_last_epochs_row_dropout_or_not(forgetful):
    accuracy = float(rows(forgetful[0])[-1]["test_accuracy"])
    assert forgetful[1].out.splitlines()[-1].startswith(f"Test accuracy: {accuracy:.2%} ")


def go_slowly() -> None:
    """Makes each of the 20 steps of an epoch last, so that the run is still there when it is to be killed."""
    draw_nothing()
    distort = train_lenet.random_affine
    train_lenet.random_affine = lambda *given: (time.sleep(0.02), distort(*given))[1]


def wait_until(happened: Callable[[], bool], process: multiprocessing.Process) -> None:
    while process.is_alive():
        with contextlib.suppress(FileNotFoundError):
            if happened():
                return
        time.sleep(0.01)
    pytest.fail("the process ended too early")


@no_signals
def test_a_run_killed_at_random_moments_ends_as_if_it_never_was(start_lenet, run, whole, tmp_path):
    moments = random.Random(0)
    for epochs in range(3):  # killed in its first epoch, then in its second, then in its third
        process = start_lenet(tmp_path, *SMALL, "--out", "run", "--resume", prepare=go_slowly)
        wait_until(lambda: "Training" in (tmp_path / "out.txt").read_text(), process)
        if epochs:
            wait_until(lambda least=epochs: len(rows(tmp_path / "run")) >= least, process)
        process.join(moments.uniform(0, 0.35))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert run(tmp_path, *SMALL, "--out", "run", "--resume").status == 0
    assert result(tmp_path / "run") == result(whole[0])


@no_signals
def test_a_run_killed_before_its_first_checkpoint_starts_afresh_and_says_so(run, tmp_path):
    arguments = [*SMALL[2:], "--epochs", "1", "--out", "run"]
    run(tmp_path, *arguments, prepare=functools.partial(die_before_file, 1))
    assert "checkpoint.pth" not in os.listdir(tmp_path / "run")
    ended = run(tmp_path, *arguments, "--resume")
    assert "No checkpoint in run yet: starting afresh" in ended.out
    assert len(rows(tmp_path / "run")) == 1


@no_signals
def test_ctrl_c_says_how_the_run_ends_as_if_it_was_never_stopped(start_lenet, run, whole, tmp_path):
    process = start_lenet(tmp_path, *SMALL, "--out", "run", prepare=go_slowly)
    wait_until(lambda: (tmp_path / "run" / "history.csv").exists(), process)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    error = (tmp_path / "error.txt").read_text()
    assert (process.exitcode, "Traceback" in error) == (130, False)
    assert error.splitlines()[-1] == "Stopped. To go on: the same command with --out run --resume"
    assert "Going on with run after epoch" in run(tmp_path, *SMALL, "--out", "run", "--resume").out
    assert result(tmp_path / "run") == result(whole[0])


def test_ctrl_c_while_mnist_is_loaded_ends_quietly(monkeypatch, capsys):
    def load(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_lenet, "load_mnist", load)
    monkeypatch.setattr(sys, "argv", ["train_lenet.py"])
    with pytest.raises(SystemExit) as stop:
        train_lenet.main()
    assert (stop.value.code, *capsys.readouterr()) == (130, "", "")


def test_resuming_a_finished_run_says_so_and_changes_nothing(run, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    before = contents(tmp_path / "run")
    ended = run(tmp_path, "--out", "run", "--resume")
    assert (ended.status, ended.error) == (0, "")
    assert "run is finished" in ended.out and "Nothing to do" in ended.out
    assert contents(tmp_path / "run") == before


def test_resuming_needs_no_settings(run, whole, halfway):
    assert run(halfway, "--out", "run", "--resume").status == 0
    assert result(halfway / "run") == result(whole[0])


def test_resuming_with_other_settings_lists_them_and_changes_nothing(run, halfway):
    before = contents(halfway / "run")
    message = one_error(run(halfway, "--out", "run", "--resume", "--epochs", "4", "--seed", "0", "--no-augment"))
    assert "epochs 4 (the run has 3)" in message and "augment False (the run has True)" in message
    assert "seed" not in message
    assert contents(halfway / "run") == before


def claim_two_threads() -> None:
    draw_nothing()
    torch.get_num_threads = lambda: 2


def die_with_two_threads(number: int) -> None:
    claim_two_threads()
    die_before_file(number)


@no_signals
def test_each_resumption_elsewhere_warns_not_only_the_first(run, start_lenet, halfway):
    die_in_the_second_epoch = functools.partial(die_with_two_threads, 3)
    start_lenet(halfway, "--out", "run", "--resume", prepare=die_in_the_second_epoch).join()
    assert len(rows(halfway / "run")) == 2
    ended = run(halfway, "--out", "run", "--resume", prepare=claim_two_threads)
    assert re.search(r"^warning: .*threads 2 \(the run began on 1\)$", ended.error, re.MULTILINE)


def test_resuming_with_another_thread_count_warns_and_goes_on(run, halfway):
    ended = run(halfway, "--out", "run", "--resume", prepare=claim_two_threads)
    assert ended.status == 0
    assert re.search(r"^warning: .*threads 2 \(the run began on 1\)$", ended.error, re.MULTILINE)


def test_an_out_that_holds_a_run_is_an_error_and_stays_as_it_is(run, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    before = contents(tmp_path / "run")
    assert "run already holds a run" in one_error(run(tmp_path, *SMALL, "--out", "run"))
    assert contents(tmp_path / "run") == before


def test_a_loss_that_is_no_number_names_epoch_step_and_learning_rate(run, tmp_path):
    message = one_error(run(tmp_path, *SMALL, "--out", "run", "--lr", "1e30"))
    assert re.search(r"became (nan|inf) at epoch 1, step \d+, learning rate [\d.]+e\+\d+ ", message)
    assert not (tmp_path / "run" / "lenet.pth").exists()


def lose_the_number() -> None:
    distort = train_lenet.random_affine
    train_lenet.random_affine = lambda *given: distort(*given) * torch.nan


def test_a_loss_that_is_no_number_leaves_the_last_good_checkpoint(run, whole, halfway):
    before = contents(halfway / "run")["checkpoint.pth"]
    message = one_error(run(halfway, "--out", "run", "--resume", prepare=lose_the_number))
    assert "became nan at epoch 2, step 1, learning rate" in message
    assert contents(halfway / "run")["checkpoint.pth"] == before
    run(halfway, "--out", "run", "--resume")
    assert result(halfway / "run") == result(whole[0])


def allow_only_small_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot limit the size of a process's files")
def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_last_one(run, whole, halfway):
    before = contents(halfway / "run")["checkpoint.pth"]
    message = one_error(run(halfway, "--out", "run", "--resume", prepare=allow_only_small_files))
    assert re.search("cannot write run.checkpoint.pth: File too large", message)
    after = contents(halfway / "run")
    assert (after["checkpoint.pth"], sorted(after)) == (before, ["checkpoint.pth", "history.csv"])
    run(halfway, "--out", "run", "--resume")
    assert result(halfway / "run") == result(whole[0])


# What the command refuses


@pytest.fixture
def no_digits(monkeypatch):
    """The command in this process, with digits that it will not come to use."""
    monkeypatch.setattr(train_lenet, "load_mnist", lambda root, train: numbered(10))
    monkeypatch.setattr(train_lenet, "train", lambda *_: pytest.fail("the command went on to train"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epochs", "many"], "--epochs: invalid int value"),
        (["--epochs", "0"], "--epochs: must be from 1 to"),
        (["--batch-size", "-1"], "--batch-size: must be from 1 to"),
        (["--batch-size", str(10**30)], "--batch-size: must be from 1 to"),
        (["--lr", "0"], "--lr: must be from 1e-12 to"),
        (["--lr", "nan"], "--lr: must be from 1e-12 to"),
        (["--lr", "inf"], "--lr: must be from 1e-12 to"),
        (["--seed", "-1"], "--seed: must be from 0 to 4294967295"),
        (["--seed", str(2**32)], "--seed: must be from 0 to 4294967295"),
        (["--model", "lenet4"], "--model: invalid choice"),
        (["--epoch", "3"], "unrecognized arguments: --epoch"),
        (["--dropout", "0.5"], "unrecognized arguments: --dropout"),
    ],
)
def test_wrong_usage_ends_with_status_2_and_is_named(monkeypatch, capsys, arguments, said):
    monkeypatch.setattr(sys, "argv", ["train_lenet.py", *arguments])
    with pytest.raises(SystemExit) as stop:
        train_lenet.main()
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("train_lenet.py: error: ") and said in last


def test_an_unknown_device_is_refused(no_digits, monkeypatch):
    assert "unknown device 'tpu'" in command_error(monkeypatch, "--device", "tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_is_refused_where_there_is_none(no_digits, monkeypatch):
    assert "no device cuda here" in command_error(monkeypatch, "--device", "cuda")


def test_resuming_without_out_is_refused(no_digits, monkeypatch):
    assert "--resume needs --out DIR" in command_error(monkeypatch, "--resume")


def test_an_out_inside_a_file_is_refused(no_digits, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    assert "cannot write to --out" in command_error(monkeypatch, "--out", tmp_path / "file" / "run")


@pytest.mark.skipif(not LINUX, reason="only Linux has /proc, where nobody can make a folder")
def test_an_out_where_nobody_can_write_is_refused(no_digits, monkeypatch):
    assert "cannot write to --out /proc/run" in command_error(monkeypatch, "--out", "/proc/run")


def test_tensorboard_without_its_package_is_refused_by_its_name(no_digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert "pip install tensorboard" in command_error(monkeypatch, "--tensorboard")


def test_tensorboard_gets_a_log_of_the_run(run, tmp_path):
    pytest.importorskip("tensorboard", reason="the optional package tensorboard is not installed")
    ended = run(tmp_path, *SMALL[2:], "--epochs", "1", "--tensorboard", "--out", "run")
    assert ended.status == 0
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))


@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"hello\n"])
def test_a_damaged_checkpoint_is_refused_and_stays_as_it_is(no_digits, monkeypatch, whole, tmp_path, damage):
    (tmp_path / "checkpoint.pth").write_bytes(damage((whole[0] / "checkpoint.pth").read_bytes()))
    before = contents(tmp_path)
    message = command_error(monkeypatch, "--out", tmp_path, "--resume")
    assert f"{tmp_path / 'checkpoint.pth'} is damaged or is no checkpoint" in message
    assert contents(tmp_path) == before


def test_weights_in_place_of_the_checkpoint_are_refused(no_digits, monkeypatch, whole, tmp_path):
    shutil.copy(whole[0] / "lenet.pth", tmp_path / "checkpoint.pth")
    assert "is not a checkpoint of train_lenet.py" in command_error(monkeypatch, "--out", tmp_path, "--resume")


def test_the_defaults_are_those_of_the_help(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train_lenet.py", "--help"])
    with pytest.raises(SystemExit):
        train_lenet.main()
    options = re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)
    assert sorted(options) == sorted(
        "--epochs --batch-size --lr --model --no-augment --seed --data --out --device --resume --validate "
        "--tensorboard".split()
    )
