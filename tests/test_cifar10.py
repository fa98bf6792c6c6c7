"""Pictures come in whole and mixed, the networks are what they are said to be, and each trick does what it is for.

The trainings are `--quick`, on pictures made here, so that no CIFAR-10 is needed; the fast network is narrow in them.
"""

import csv
import json
import pickle
import re
import shutil
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision.datasets import CIFAR10

import labs.cifar10.__main__ as cifar10
from labs import weights
from labs.cifar10 import networks, recipes
from labs.cifar10.networks import CifarCNN, FastCNN, Standardize, Standardized, training_operations
from labs.cifar10.pictures import CLASSES, DOWNLOADED, load_cifar, plot_variation, vary
from labs.cifar10.recipes import TRICKS, look_ahead, make_network, make_optimizer, recipe_of, score, sides
from labs.weights import load
from lenet import count_parameters
from training import epoch_generator

ROOT = Path(__file__).parent.parent
CIFAR = ROOT / "data" / "cifar10"
FILES = {"checkpoint.pth", "cifar10.pth", "confusion.png", "curves.png", "history.csv", "mistakes.png"}
FILES |= {"pictures.png", "result.json"}
NARROW = (8, 16, 16)


def bytes_of(count: int) -> torch.Tensor:
    return torch.randint(256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()


def settings(**changed: object) -> dict[str, object]:
    return {**cifar10.DEFAULTS, **changed}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Twelve pictures of each class to learn and twelve to test on, of one grey, 20 times the label, in noise."""
    root, random = tmp_path_factory.mktemp("cifar10"), np.random.default_rng(0)
    for part in ("train", "test"):
        for label, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for number in range(12):
                pixels = (20 * label + random.integers(-15, 16, (32, 32, 3))).clip(0, 255).astype(np.uint8)
                pixels[0, 0] = 20 * label
                Image.fromarray(pixels).save(root / part / name / f"{number:04}.png")
    return root


@pytest.fixture(scope="module")
def command(folder):
    """Runs the command in this process; gives its exit status or message, and what it printed."""

    def run(*arguments: object) -> tuple[object, str]:
        status = None
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
            patch.setitem(recipes.RECIPES["fast"], "widths", NARROW)
            data = [] if arguments[0] == "predict" else ["--data", str(folder)]
            given = ["--device", "cpu", *data, *map(str, arguments[1:])]
            patch.setattr(sys, "argv", ["cifar10.py", arguments[0], *given])
            try:
                cifar10.main()
            except SystemExit as stop:
                status = stop.code
        return status, printed.getvalue()

    return run


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a run of the fast recipe that nothing interrupted, and what the command printed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    status, printed = command("train", "--quick", "--out", out)
    assert status is None
    return out, printed


# Pictures


def test_a_folder_of_class_folders_gives_bytes_labels_and_names(folder):
    pictures, labels, classes = load_cifar(folder, "train")
    assert (pictures.shape, pictures.dtype, classes) == ((120, 3, 32, 32), torch.uint8, CLASSES)
    assert torch.equal(pictures[:, 0, 0, 0].long(), 20 * labels)
    assert labels.bincount().tolist() == [12] * 10


def test_the_classes_are_mixed_and_always_in_the_same_way(folder):
    first, again = (load_cifar(folder, "train")[1] for _ in range(2))
    assert torch.equal(first, again)
    assert len(set(first[-12:].tolist())) > 4


def test_fewer_than_ten_pictures_are_drawn_as_well(tmp_path):
    plot_variation(tmp_path / "pictures.png", [torch.zeros(9, 3, 32, 32)] * 2)
    assert (tmp_path / "pictures.png").exists()


def test_only_some_pictures_of_each_class_are_read_if_so_asked(folder):
    assert load_cifar(folder, "test", count=30)[1].bincount().tolist() == [3] * 10


def test_torchvisions_download_is_read(tmp_path, monkeypatch):
    home = tmp_path / DOWNLOADED
    assert DOWNLOADED == CIFAR10.base_folder
    home.mkdir()
    data = bytes_of(2).numpy()
    for (name, _), label in zip(CIFAR10.train_list, range(5), strict=True):
        batch = {"data": data.reshape(2, -1), "labels": [label, 9]}
        (home / name).write_bytes(pickle.dumps(batch))
    (home / "batches.meta").write_bytes(pickle.dumps({"label_names": CLASSES}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: Path(path).exists())
    monkeypatch.setattr(CIFAR10, "test_list", [])
    pictures, labels, classes = load_cifar(tmp_path, "train")
    assert classes == CLASSES and sorted(labels.tolist()) == [0, 1, 2, 3, 4, 9, 9, 9, 9, 9]
    assert torch.equal(pictures[labels == 9], torch.from_numpy(data[1]).expand(5, -1, -1, -1))


def test_a_download_with_wrong_checksums_is_not_unpickled(tmp_path):
    home = tmp_path / CIFAR10.base_folder
    home.mkdir()
    for name, _ in CIFAR10.train_list + CIFAR10.test_list:
        (home / name).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(ValueError, match="is damaged: download CIFAR-10 again"):
        load_cifar(tmp_path, "train")


def test_without_pictures_the_error_says_where_they_should_be(tmp_path):
    with pytest.raises(ValueError, match=f"no pictures in {tmp_path / 'train'}: put a folder for each class there"):
        load_cifar(tmp_path, "train")


def test_other_than_ten_folders_are_refused(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="should hold ten folders of pictures"):
        load_cifar(tmp_path, "train")


def test_a_picture_of_another_size_is_named(tmp_path):
    for name in CLASSES:
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (40, 32)).save(tmp_path / "train" / name / "a.jpg")
    with pytest.raises(ValueError, match=r"airplane/a.jpg has 40x32 pixels, not 32x32"):
        load_cifar(tmp_path, "train")


@pytest.mark.skipif(
    not CIFAR.is_dir(), reason="data/cifar10 is not there: unpack ../shared/data/cifar10.tar.xz into it"
)
def test_the_seeds_deviations_are_the_means_of_the_pictures_own():
    pictures, *_ = load_cifar(CIFAR, "train", count=1000)
    standardize = Standardize()
    standardize.measure(pictures)
    assert standardize.mean.flatten().tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.02)
    assert standardize.deviation.flatten().tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=0.01)
    own = (pictures / 255).std(dim=(2, 3)).mean(dim=0)
    assert own.tolist() == pytest.approx([0.2023, 0.1994, 0.2010], abs=0.01)


# Variation


def test_a_picture_is_shifted_by_up_to_the_limit_both_ways():
    pictures = torch.zeros(500, 1, 9, 9, dtype=torch.uint8)
    pictures[:, :, 4, 4] = 255
    shifted = vary(pictures, torch.Generator().manual_seed(0), limit=2, mode="reflect", mirrored=False)
    places = shifted[:, 0].nonzero()[:, 1:]
    assert shifted.sum() == 500  # the dot stays, and is one
    assert set(map(tuple, places.tolist())) == {(row, column) for row in range(2, 7) for column in range(2, 7)}


@pytest.mark.parametrize(("mode", "outside"), [("constant", 0.0), ("reflect", 1.0)])
def test_what_comes_in_from_outside_is_black_or_the_pictures_own(mode, outside):
    white = torch.full((50, 3, 8, 8), 255, dtype=torch.uint8)
    assert vary(white, torch.Generator().manual_seed(0), 4, mode, mirrored=False).min() == outside


def test_every_second_picture_is_mirrored():
    pictures = torch.arange(4).byte().expand(1000, 1, 4, 4)
    varied = vary(pictures, torch.Generator().manual_seed(0), 0, "reflect", mirrored=True) * 255
    mirrored = varied[:, 0, 0, 0] == 3
    assert torch.equal(varied[mirrored], pictures[mirrored].flip(3)) and torch.equal(
        varied[~mirrored], pictures[~mirrored].float()
    )
    assert 400 < mirrored.sum() < 600


def test_what_is_mirrored_in_one_epoch_is_not_in_the_next():
    pictures = bytes_of(200)
    even, odd = sides(recipe_of(settings()), pictures, seed=0)
    assert torch.equal(even.flip(3), odd)
    assert 60 < (even != pictures).flatten(1).any(dim=1).sum() < 140


def test_an_epochs_variation_depends_on_seed_and_epoch_alone():
    first, again, other = (
        vary(bytes_of(20), epoch_generator(0, epoch), 2, "reflect", mirrored=True) for epoch in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


# The networks


def test_operations_are_counted_where_the_network_is(monkeypatch):
    monkeypatch.setattr(networks, "has_bfloat16", lambda device: False)  # "meta" stands for CUDA, has no autocast
    with torch.device("meta"):
        network = Standardized(CifarCNN())
    assert training_operations(network) == training_operations(Standardized(CifarCNN()))


def test_the_seeds_network_has_its_parameters_megabytes_and_shapes():
    network = CifarCNN()
    assert count_parameters(network) == 5_852_170
    assert network.conv_layer(torch.zeros(1, 3, 32, 32)).shape == (1, 256, 4, 4)
    kinds = [type(layer).__name__ for layer in network.conv_layer]
    block = ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d"]
    assert kinds == [*block, *block, "Dropout2d", *block]


def test_the_fast_network_has_two_million_parameters_and_fewer_operations():
    seed, fast = Standardized(CifarCNN()), Standardized(FastCNN())
    assert count_parameters(fast) == 1_971_640
    assert training_operations(fast) < training_operations(seed) == pytest.approx(0.825e9, rel=0.01)


def test_whitened_patches_are_uncorrelated_and_of_variance_1():
    smooth = F.avg_pool2d(torch.rand(200, 3, 36, 36, generator=torch.Generator().manual_seed(0)), 5, stride=1)
    x = (smooth - smooth.mean()) / smooth.std()
    network = FastCNN(NARROW)
    network.whiten(x)
    white = F.conv2d(x, network.first.weight)
    assert torch.equal(white[:, :12], -white[:, 12:])
    covariance = torch.cov(white[:, :12].transpose(0, 1).flatten(1))
    assert torch.allclose(covariance, torch.eye(12), atol=0.1)
    assert not network.first.weight.requires_grad and not network.first.bias.any()


def test_a_convolution_that_begins_as_identity_passes_its_inputs_on():
    network = FastCNN(NARROW)
    network.begin_as_identity()
    x = torch.rand(1, 8, 6, 6)
    assert torch.equal(network.blocks[1].conv1(x)[:, :8], x)
    assert not torch.equal(network.blocks[1].conv1(x)[:, 8:], x)


def test_standardized_pictures_have_mean_0_and_deviation_1():
    pictures = bytes_of(50)
    standardize = Standardize()
    standardize.measure(pictures)
    x = standardize(pictures / 255)
    assert torch.allclose(x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(x.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_a_network_computes_in_bfloat16_only_while_it_learns(training, monkeypatch):
    monkeypatch.setattr(networks, "has_bfloat16", lambda device: True)
    network = Standardized(FastCNN(NARROW)).train(training)
    seen = []
    network.network.blocks[0].conv2.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    assert network(torch.rand(2, 3, 32, 32)).dtype == torch.float32
    assert seen == [torch.bfloat16 if training else torch.float32]


# The recipes


def test_the_seeds_recipe_is_adam_at_its_rate_without_any_trick():
    recipe = recipe_of(settings(recipe="seed"))
    optimizer, _ = make_optimizer(recipe, nn.Linear(1, 1), steps=10)
    assert isinstance(optimizer, torch.optim.Adam) and optimizer.param_groups[0]["lr"] == 1e-4
    assert recipe == {"epochs": 20, "batch_size": 128, "tricks": set()}
    assert recipes.variation(recipe).keywords == {"limit": 4, "mode": "constant", "mirrored": True}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_is_left_out_alone(trick):
    assert recipe_of(settings(without=trick))["tricks"] == set(TRICKS) - {trick}
    assert recipe_of(settings(without="all"))["tricks"] == set()


def test_the_biases_of_batch_norm_learn_64_times_as_fast_and_decay_no_faster():
    network = make_network({**recipe_of(settings()), "widths": NARROW}, bytes_of(20))
    optimizer, _ = make_optimizer(recipe_of(settings()), network, steps=100)
    norms, others = optimizer.param_groups
    assert norms["initial_lr"] == 64 * others["initial_lr"]
    assert norms["initial_lr"] * norms["weight_decay"] == pytest.approx(others["initial_lr"] * others["weight_decay"])
    assert [weight.shape for weight in norms["params"]] == [(8,)] * 2 + [(16,)] * 4


def rates(without: str) -> list[float]:
    recipe = {**recipe_of(settings(without=without)), "widths": NARROW}
    optimizer, scheduler = make_optimizer(recipe, FastCNN(NARROW), steps=100)
    highest, seen = optimizer.param_groups[1]["initial_lr"], []
    for _ in range(100):
        seen.append(optimizer.param_groups[1]["lr"] / highest)
        optimizer.step()
        scheduler.step()
    return seen


def test_the_rate_is_a_triangle_and_without_it_as_high_in_the_mean():
    triangle, constant = rates("nothing"), rates("triangle")
    assert triangle[0] == pytest.approx(0.2) and triangle[23] == 1 == max(triangle)
    assert triangle[-1] == pytest.approx(0.07, abs=0.02)
    assert len(set(constant)) == 1
    assert sum(triangle) == pytest.approx(sum(constant), rel=0.01)


def test_looking_ahead_goes_back_to_the_average_every_five_steps_and_ends_on_it_unblended():
    weight = nn.Linear(1, 1, bias=False)
    weight.weight.data.fill_(0)
    optimizer = torch.optim.SGD(weight.parameters(), lr=1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    look_ahead(optimizer, scheduler, weight, every=5, steps=12)
    path = []
    for _ in range(12):
        weight.weight.grad = -torch.ones(1, 1)
        optimizer.step()
        scheduler.step()
        path.append(weight.weight.item())
    at_ten = 5 + 5 * (1 - 0.95**5 * (10 / 12) ** 3)
    assert path == pytest.approx([1, 2, 3, 4, 5, 6, 7, 8, 9, at_ten, at_ten + 1, at_ten])


def test_copies_are_mirrored_and_shifted_by_a_pixel():
    pictures = bytes_of(7)
    corner = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10, bias=False))
    corner[1].weight.data.fill_(0)[0, 0] = 255  # its first logit is the first pixel
    scores = score(corner, pictures)
    red = pictures[:, 0].float()
    mirrored = (red[:, 0, 0] + red[:, 0, 31]) / 2
    assert torch.allclose(scores["plain"][:, 0], red[:, 0, 0])
    assert torch.allclose(scores["mirrored"][:, 0], mirrored)
    shifted = (red[:, 1, 1] + red[:, 1, 1] + red[:, 1, 30] + red[:, 1, 30]) / 4  # an edge reflects what is beside it
    assert torch.allclose(scores["copies"][:, 0], mirrored / 2 + shifted / 2)


# The trainings


def test_a_run_leaves_its_files_and_prints_what_its_copies_add(finished):
    out, printed = finished
    assert {path.name for path in out.iterdir()} == FILES
    result = json.loads((out / "result.json").read_text())
    assert f"Test accuracy: {result['accuracy']:.2%} (" in printed
    assert f"plain {result['plain']:.2%}, with mirror images {result['mirrored']:.2%}" in printed
    assert result["accuracy"] == result["copies"] and 0 < result["data_share"] < 1
    assert result["colours"]["mean"] == pytest.approx([90 / 255] * 3, abs=0.01)


@pytest.fixture
def stopped(command, tmp_path, monkeypatch) -> Path:
    """The folder of a run that was stopped in its second epoch."""

    def stop_in_the_second_epoch(*arguments):
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return train_epoch(*arguments)

    train_epoch = recipes.train_epoch
    with monkeypatch.context() as context:
        context.setattr(recipes, "train_epoch", stop_in_the_second_epoch)
        assert command("train", "--quick", "--out", tmp_path / "run")[0] == 130
    return tmp_path / "run"


def test_a_run_that_was_stopped_ends_with_the_same_bits(finished, stopped, command):
    assert command("train", "--out", stopped, "--resume")[0] is None
    whole, resumed = (load("cifar", path).state_dict() for path in (finished[0], stopped))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_seeds_recipe_runs_and_is_judged_without_copies(command, tmp_path):
    status, _ = command("train", "--recipe", "seed", "--quick", "--validate", "--out", tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert status is None and result["pictures"].startswith("108 with checksum ") and result["parameters"] == 5_852_170
    assert result["accuracy"] == result["plain"]


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Path:
    """Where `keep` puts what the text reads, in this test."""
    monkeypatch.setattr(cifar10, "RESULTS", tmp_path)
    monkeypatch.setattr(cifar10, "__file__", str(tmp_path / "__main__.py"))
    monkeypatch.setattr(cifar10, "PICTURES", settings()["pictures"])
    (tmp_path / "labs").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "name", "figures"),
    [
        ({}, "cifar10_fast", {"confusion.png", "curves.png"}),
        ({"recipe": "seed"}, "cifar10_seed", set()),
        ({"validate": True, "seed": 3}, "cifar10_fast_seed3_validate", set()),
    ],
)
def test_a_finished_run_is_kept_under_its_settings(finished, kept, monkeypatch, changed, name, figures):
    monkeypatch.setattr(cifar10, "to_keep", lambda run, script: settings(**changed))
    cifar10.keep(finished[0])
    assert (kept / "labs" / f"{name}.json").read_text() == (finished[0] / "result.json").read_text()
    assert {path.name for path in kept.iterdir()} == {"labs"} | figures


def test_a_quick_run_or_one_without_an_end_is_not_kept(command, finished, stopped, kept):
    for run, why in ((finished[0], "is a --quick run"), (stopped, "holds no finished run")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["cifar10", "keep", str(run)])
            with pytest.raises(SystemExit, match=f"^error: {run} {why}"):
                cifar10.main()
    assert not list((kept / "labs").iterdir())


def test_a_run_of_other_pictures_is_not_kept(finished, kept, monkeypatch):
    monkeypatch.setattr(cifar10, "to_keep", lambda run, script: settings(pictures="50000 with checksum 00000000"))
    with pytest.raises(ValueError, match="learned other pictures .50000 with checksum 00000000. than the page"):
        cifar10.keep(finished[0])
    assert not list((kept / "labs").iterdir())


def test_a_result_says_on_what_and_where_it_was_made(finished):
    result = json.loads((finished[0] / "result.json").read_text())
    assert re.fullmatch(r"120 with checksum \w{8}", result["pictures"]) and result["seconds"] > 0 == result["seed"]
    assert result["machine"]["device"] == "cpu" and result["machine"]["torch"] == torch.__version__


def test_weights_alone_are_evaluated_as_at_the_end_of_their_run_and_into_runs(finished, command, tmp_path, monkeypatch):
    weights = tmp_path / "mine.pth"
    weights.write_bytes((finished[0] / "cifar10.pth").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert command("evaluate", weights)[1] == finished[1].splitlines()[-1] + "\n"
    assert {path.name for path in Path("runs/mine-evaluated").iterdir()} == {"confusion.png", "mistakes.png"}


def test_a_run_goes_on_only_with_the_pictures_that_it_began_with(stopped, command, folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "data")
    Image.new("RGB", (32, 32)).save(other / "train" / "ship" / "0000.png")
    status, _ = command("train", "--out", stopped, "--resume", "--data", other)
    assert status.startswith(f"error: {stopped} was begun with other pictures (120 with checksum ")


def test_a_folder_of_another_class_is_refused(command, folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "data")
    (other / "test" / "ship").rename(other / "test" / "boat")
    status, _ = command("train", "--quick", "--out", tmp_path / "run", "--data", other)
    assert status.startswith(f"error: {other / 'test'} should hold ten folders of pictures and no other: airplane, ")


def test_any_picture_is_made_small_and_named(finished, command, tmp_path, capsys):
    for name, size in (("wide.png", (90, 60)), ("small.png", (20, 20))):
        Image.new("RGB", size, (180, 180, 180)).save(tmp_path / name)
    (tmp_path / "no.png").write_text("hello")
    photos = [tmp_path / name for name in ("no.png", "wide.png", "small.png")]
    status, printed = command("predict", "--model", finished[0], *photos)
    assert status == 1 and re.fullmatch("error: .*no.png is not a picture [^\n]+\n", capsys.readouterr().err)
    wide, small = (line.partition(": ")[2] for line in printed.splitlines())
    assert wide == small and re.fullmatch(rf"({'|'.join(CLASSES)}) \d+\.\d%", wide)


def test_the_shipped_weights_are_what_is_evaluated_where_none_are_given(finished, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = weights.NETWORKS["cifar"]._replace(path=tmp_path / "cifar10.pth")
    monkeypatch.setitem(weights.NETWORKS, "cifar", shipped)
    status, _ = command("evaluate")
    assert status == (
        f"error: there are no weights {shipped.path}: copy them from the repository, a hand-in's archive has none, "
        "or train them: python -m labs.weights keep cifar RUN"
    )
    monkeypatch.setattr(weights, "to_keep", lambda run, script: {})
    monkeypatch.setattr(sys, "argv", ["weights", "keep", "cifar", str(finished[0])])
    weights.main()
    assert command("evaluate")[1] == finished[1].splitlines()[-1] + "\n"
    assert shipped.path.stat().st_size == (finished[0] / "cifar10.pth").stat().st_size


def test_the_layers_are_shown_with_the_tutorials_megabytes(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cifar10", "layers"])
    cifar10.main()
    printed = capsys.readouterr().out
    assert "fc_layer.1       Linear       [1, 1024]\n" in printed
    assert "CifarCNN: 5,852,170 weights, 22.33 MB\n" in printed


def test_both_recipes_are_summed_up_over_their_seeds(kept, finished, monkeypatch):
    (kept / "labs" / "cifar10_speed.json").write_text('{"ratio": 1}')
    for changed in ({}, {"seed": 1}, {"seed": 2, "validate": True}):
        monkeypatch.setattr(cifar10, "to_keep", lambda run, script, changed=changed: settings(**changed))
        result = {**json.loads((finished[0] / "result.json").read_text()), **settings(**changed)}
        (finished[0] / "result.json").write_text(json.dumps(result))
        cifar10.keep(finished[0])
    (row,) = table(kept / "labs" / "cifar10_means.csv")
    assert (row["recipe"], row["count"], row["plain"]) == ("fast", "2", str(result["plain"]))


def test_the_fast_recipe_learns(finished):
    first, last = table(finished[0] / "history.csv")
    assert float(last["train_loss"]) < float(first["train_loss"])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_speed_takes_the_steps_of_both_recipes_by_turns(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recipes, "RESULTS", tmp_path)
    monkeypatch.setattr(recipes, "TIMED_ROUNDS", 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    recipes.speed(torch.randint(256, (20, 3, 32, 32)).byte(), torch.arange(20) % 10)
    result = json.loads((tmp_path / "labs" / "cifar10_speed.json").read_text())
    assert result["ratio"] == result["fast"] / result["seed"] > 0
    assert capsys.readouterr().out.startswith(f"CPU seconds: seed {result['seed']:.0f}, fast {result['fast']:.0f}, ")


def test_the_ladder_keeps_a_row_a_training_and_makes_none_twice(command, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "TRICKS", ("shifts", "bias rate"))
    monkeypatch.setitem(recipes.RECIPES, "ladder", {"epochs": 1, "batch_size": 32, "widths": NARROW})
    for name in ("ROOT", "RESULTS"):
        monkeypatch.setattr(cifar10, name, tmp_path / name)
    train = cifar10.train

    def stop_at_the_second(run, *arguments):
        if run.settings["without"] == "shifts":
            raise KeyboardInterrupt
        return train(run, *arguments)

    with monkeypatch.context() as context:
        context.setattr(cifar10, "train", stop_at_the_second)
        assert command("ladder")[0] == 130
    rows = tmp_path / "RESULTS" / "labs" / "cifar10_ladder.csv"
    assert [row["without"] for row in table(rows)] == ["nothing"]
    assert command("ladder")[0] is None
    made = table(rows)
    assert [row["without"] for row in made] == ["nothing", "shifts", "bias rate", "all"]
    for row in made:
        gained = 100 * (float(made[0]["copies"]) - float(row["copies"]))
        assert float(row["gained_points"]) == pytest.approx(gained, abs=0.006)
    monkeypatch.setattr(cifar10, "train", lambda *_: pytest.fail("trained twice"))
    assert command("ladder")[0] is None


# What users get wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--seed", "-1"), "argument --seed: must be from 0 to"),
        (("train", "--resume"), "--resume needs --out"),
        (("evaluate", "nowhere.pth"), "there are no weights nowhere.pth"),
        (("evaluate", ROOT / "labs" / "weights" / "lenet.pth"), ".*does not hold the weights of cifar"),
        (("evaluate", ROOT / "labs" / "weights.py"), ".*does not hold the weights of cifar"),
        (("evaluate", ROOT / "LICENSE"), ".*does not hold the weights of cifar"),
        (("evaluate", ROOT / "labs"), "there are no weights .*cifar10.pth: give the folder of a finished run"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(command, arguments, message, capsys):
    status, _ = command(*arguments)
    assert re.search(f"error: {message}[^\n]*$", capsys.readouterr().err.strip() if status == 2 else status)
