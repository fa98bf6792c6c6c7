"""Pictures are read, split and distorted as said, a training keeps its best weights, and these tell cats from dogs.

Cats here are red noise and dogs blue. Trainings are `--quick`.
"""

import csv
import json
import re
import sys
import tarfile
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

import labs.cats_dogs.__main__ as cats_dogs
from labs.cats_dogs import scores
from labs.cats_dogs.pictures import find_pictures, load_pictures, normalize, open_picture, split
from labs.cats_dogs.recipes import STAGES, begin_training, distort
from labs.cats_dogs.scores import key_of, probabilities
from labs.resnet import NETWORKS
from labs.weights import NETWORKS as SHIPPED
from labs.weights import load
from training import epoch_generator

ROOT = Path(__file__).parent.parent
TAR = ROOT.parent / "shared" / "data" / "cats_dogs.tar"
SMALL = ["--quick", "--device", "cpu"]


def make_pictures(folder: Path, each: int) -> Path:
    noise = np.random.default_rng(0)
    for name, colour in (("cat", (200, 60, 60)), ("dog", (60, 60, 200))):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            pixels = noise.normal(colour, 40, size=(30 + index, 40, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}.{index}.jpg")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("data") / "train", 20)


@pytest.fixture
def own_data(tmp_path):
    """A folder that the test may damage."""
    return make_pictures(tmp_path / "own", 3)


def command(*words: object) -> tuple[object, str, str]:
    """Runs the command in this process; gives its exit status or message, and what it printed where."""
    status = None
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        patch.setattr(sys, "argv", ["cats_dogs.py", *map(str, words)])
        try:
            cats_dogs.main()
        except SystemExit as stop:
            status = stop.code
    return status, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The folder of a run that nothing interrupted, and what the command printed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    status, printed, _ = command("train", "--data", data, *SMALL, "--out", out)
    assert status is None
    return out, printed


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# Pictures


@pytest.mark.parametrize("flat", [True, False])
def test_our_pictures_are_found_in_either_publishers_folder_and_all_put_where_they_belong(tmp_path, monkeypatch, flat):
    source, out = tmp_path / "source", tmp_path / "out"
    wanted = [f"{name}.{number}.jpg" for name in ("cat", "dog") for number in range(1, 1001)]
    tested = (ROOT / "labs" / "cats_dogs" / "val.txt").read_text().split()
    assert len(set(wanted + tested)) == 3000
    for file in [*wanted, *tested, "cat.0.jpg"]:
        name, number, _ = file.split(".")
        path = source / file if flat else source / name.capitalize() / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)
    with monkeypatch.context() as context:
        context.setattr("shutil.copyfile", Mock(side_effect=KeyboardInterrupt))
        assert command("prepare", source, "--out", out)[0] == 130
    assert not list(out.iterdir())  # all of them or none
    status, printed, _ = command("prepare", source, "--out", out)
    assert (status, printed) == (None, f"{out}: 2000 pictures in train, 1000 pictures in val\n")
    assert [len(find_pictures(out / part)) for part in ("train", "val")] == [2000, 1000]
    assert all(path.read_text() == path.name for path in out.rglob("*.jpg"))
    assert (
        command("prepare", source, "--out", out)[0] == f"error: {out / 'train'} is there already: choose another --out"
    )


def test_a_picture_that_is_damaged_in_microsofts_folder_is_named(tmp_path):
    names = [f"{name}.{number}.jpg" for name in ("cat", "dog") for number in range(1, 1001)]
    for file in [*names, *(ROOT / "labs" / "cats_dogs" / "val.txt").read_text().split()]:
        name, number, _ = file.split(".")
        path = tmp_path / "PetImages" / name.capitalize() / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("" if file == "cat.666.jpg" else file)
    _, printed, said = command("prepare", tmp_path / "PetImages", "--out", tmp_path / "out")
    assert printed == f"{tmp_path / 'out'}: 1999 pictures in train, 1000 pictures in val\n"
    assert said.startswith(f"warning: {tmp_path / 'PetImages'} lacks 1 of the 3000 pictures (cat.666.jpg): ")


def test_a_folder_that_lacks_our_pictures_is_refused(own_data):
    status, _, _ = command("prepare", own_data, "--out", own_data / "out")
    assert status.startswith(f"error: {own_data} lacks 3000 of the 3000 pictures, cat.1.jpg first: give the folder of ")
    assert not (own_data / "out").exists()


@pytest.mark.skipif(not TAR.exists(), reason="the pictures of cats and dogs are not here")
def test_the_names_are_those_of_our_pictures():
    with tarfile.open(TAR) as archive:
        names = {Path(name).name for name in archive.getnames() if name.startswith("val/") and name.endswith(".jpg")}
    assert names == set((ROOT / "labs" / "cats_dogs" / "val.txt").read_text().split())


def test_the_folders_name_says_what_a_picture_shows(data):
    assert [(path.parent.name, label) for path, label in find_pictures(data)] == [("cat", 0)] * 20 + [("dog", 1)] * 20


def test_files_that_are_no_pictures_are_left_alone(own_data):
    (own_data / "cat" / "Thumbs.db").write_text("")
    assert len(find_pictures(own_data)) == 6


@pytest.mark.parametrize("spoil", ["no dog", "an empty dog", "a bird", "nothing at all"])
def test_another_layout_is_refused(own_data, spoil):
    if spoil != "a bird":
        for path in (own_data / "dog").iterdir():
            path.unlink()
    if spoil in ("no dog", "nothing at all"):
        (own_data / "dog").rmdir()
    if spoil == "a bird":
        make_pictures(own_data / "bird", 1)
    folder = own_data / "elsewhere" if spoil == "nothing at all" else own_data
    with pytest.raises(ValueError, match=r"^there should be pictures in [^\n]+cat and in [^\n]+dog, and no other"):
        find_pictures(folder)


def test_a_picture_is_what_the_seeds_transform_makes_of_it(data):
    from torchvision.transforms import Compose, Normalize, Resize, ToTensor  # late, for the processes of these tests

    path = data / "cat" / "cat.3.jpg"
    transform = Compose([Resize((24, 24)), ToTensor(), Normalize([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])])
    assert torch.allclose(normalize(open_picture(path, 24)), transform(Image.open(path)), atol=1e-6)


def test_damaged_pictures_are_named_and_counted_and_the_others_keep_their_labels(own_data, capsys):
    (own_data / "cat" / "cat.1.jpg").write_text("no picture")
    dog = own_data / "dog" / "dog.0.jpg"
    dog.write_bytes(dog.read_bytes()[:500])
    images, labels, pictures = load_pictures(find_pictures(own_data), 8)
    assert labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(images[2], open_picture(own_data / "dog" / "dog.1.jpg", 8))
    assert [path.name for path, _ in pictures] == ["cat.0.jpg", "cat.2.jpg", "dog.1.jpg", "dog.2.jpg"]
    said = capsys.readouterr().err
    assert re.search("skipped: [^\n]+cat.1.jpg", said) and re.search("skipped: [^\n]+dog.0.jpg", said)
    assert said.endswith("skipped 2 of 6 pictures\n")


@pytest.mark.parametrize("damaged", ["dogs", "cats and dogs"])
def test_where_all_of_a_class_are_damaged_there_is_nothing_to_train_on(own_data, damaged):
    pictures = find_pictures(own_data)
    for path, _ in pictures:
        if path.parent.name in damaged:
            path.write_text("")
    with pytest.raises(ValueError, match=f"^none of the {damaged} can be read$"):
        load_pictures(pictures, 8)


def test_the_split_is_random_and_the_seeds_alone():
    training, kept_back = split(1000, 0.15, seed=0)
    assert len(kept_back) == 150 and sorted([*training.tolist(), *kept_back.tolist()]) == list(range(1000))
    assert 400 < kept_back.float().mean() < 600
    assert torch.equal(split(1000, 0.15, seed=0)[1], kept_back)
    assert not torch.equal(split(1000, 0.15, seed=1)[1], kept_back)


def test_nothing_need_be_kept_back():
    assert [len(part) for part in split(10, 0, seed=0)] == [10, 0]


def test_distortions_are_pictures_and_the_generators_alone():
    images, labels = torch.randint(0, 256, (8, 3, 40, 40), dtype=torch.uint8), torch.arange(8) % 2
    before = images.clone()
    first, again, other = (distort(images, labels, 32, epoch_generator(seed, 1), mixing=1)[0] for seed in (0, 0, 1))
    assert first.shape == (8, 3, 32, 32) and -1 <= first.min() < first.max() <= 1
    assert torch.equal(first, again) and not torch.equal(first, other) and torch.equal(images, before)


def test_labels_are_mixed_as_the_pictures_are():
    """Black cats and white dogs: the share of what is not black in a cat's picture is the dog's share in its label."""
    labels = torch.arange(64) % 2
    images = (labels * 255).byte().view(-1, 1, 1, 1).expand(-1, 3, 20, 20)
    kinds = {"alone": 0, "blended": 0, "squares": 0}
    for epoch in range(40):
        pictures, targets = distort(images, labels, 16, epoch_generator(0, epoch), mixing=0.5)
        assert torch.allclose(targets.sum(dim=1), torch.ones(64))
        cats = pictures[labels == 0].mean(dim=1)
        bright, dog = (cats > -0.999).float().mean(dim=(1, 2)), targets[labels == 0, 1]
        if dog.max() == 0:
            kinds["alone"] += 1
            assert bright.max() == 0
        elif torch.equal(bright.unique(), torch.tensor([0.0, 1.0])) and dog.max() <= 0.5:
            kinds["blended"] += 1
            assert torch.equal(bright > 0, dog > 0)
        else:
            kinds["squares"] += 1
            assert torch.allclose(bright, dog)
    assert kinds["alone"] > 10 and kinds["blended"] > 4 and kinds["squares"] > 4


# Training


def test_a_run_leaves_its_weights_beside_its_curves(whole):
    out, printed = whole
    names = {"cats_dogs.pth", "checkpoint.pth", "curves.png", "history.csv", "losses.csv"}
    assert {path.name for path in out.iterdir()} == names
    lines = printed.splitlines()
    assert lines[0] == "using 32 images for training, 8 images for validation."
    assert re.fullmatch(r"epoch 2/2 at 32x32: train loss [\d.]+, validation accuracy [\d.]+%, \d+ s", lines[3])
    assert lines[4].endswith(f"validate --data DIR --model {out / 'cats_dogs.pth'}")


def test_each_recipe_belongs_to_its_networks(data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        cats_dogs, "train", lambda run, *_: chosen.append((run.settings["recipe"], run.settings["stages"]))
    )
    chosen = []
    for words in (["plain"], ["small"], ["small", "--recipe", "seed"]):
        command(
            "train", "--data", data, "--device", "cpu", "--stages", "16:1:8", "--out", tmp_path, "--network", *words
        )
    assert chosen == [("seed", "16:1:8"), ("ours", "16:1:8"), ("seed", "16:1:8")]


def test_the_seeds_recipe_is_adam_at_a_ten_thousandth_on_batches_of_32():
    settings = {"seed": 0, "network": "plain", "recipe": "seed"}
    _, optimizer, _, way = begin_training(settings, 10, torch.device("cpu"))
    assert type(optimizer) is torch.optim.Adam and optimizer.param_groups[0]["lr"] == 0.0001
    assert way["loss_function"] is torch.nn.functional.cross_entropy
    assert STAGES["seed"] == "224:10:32"


def trained_on(monkeypatch, data, out, *words) -> set[bytes]:
    """The pictures that a training by the tutorial's recipe, which does not distort them, takes its steps on."""

    def note(net, batches, *arguments, **options):
        for images, labels in batches:
            seen.update(image.numpy().tobytes() for image in images)
            yield from steps(net, [(images, labels)], *arguments, **options)

    steps, seen = cats_dogs.train_steps, set()
    monkeypatch.setattr(cats_dogs, "train_steps", note)
    words = ["--recipe", "seed", *words]
    assert command("train", "--data", data, *SMALL, *words, "--out", out)[0] is None
    return seen


def test_no_picture_that_is_kept_back_is_trained_on(data, tmp_path, monkeypatch):
    judged = set()

    def note(network, batches, loss):
        batches = list(batches)
        judged.update(image.numpy().tobytes() for images, _ in batches for image in images)
        return 0.5, 0.5

    monkeypatch.setattr(cats_dogs, "evaluate", note)
    seen = trained_on(monkeypatch, data, tmp_path / "run")
    assert len(seen) == 32 and len(judged) == 8 and not seen & judged


def test_with_nothing_kept_back_all_are_trained_on_and_the_last_weights_are_kept(data, tmp_path, monkeypatch):
    out = tmp_path / "run"
    assert len(trained_on(monkeypatch, data, out, "--val-percent", 0)) == 40
    assert_kept(out, torch.load(out / "checkpoint.pth", weights_only=True)["network"])
    assert "validation_accuracy" not in rows_of(out / "history.csv")[0]


def assert_kept(out: Path, weights: dict[str, torch.Tensor]) -> None:
    network = load("cats_dogs", out)
    for name, value in network.state_dict().items():
        assert torch.equal(value, weights[name].half().float())


def test_the_epoch_that_is_best_on_the_pictures_kept_back_is_kept(data, tmp_path, monkeypatch):
    """Of the last size, the first of equals: the accuracies of the four epochs are told, not measured."""

    def judge(network, *_):
        weights.append({name: value.clone() for name, value in network.state_dict().items()})
        return 1.0, (0.9, 0.6, 0.8, 0.8)[len(weights) - 1]

    weights = []
    monkeypatch.setattr(cats_dogs, "evaluate", judge)
    words = ["--device", "cpu", "--stages", "16:1:8,24:3:8", "--out", tmp_path / "run"]
    assert command("train", "--data", data, *words)[0] is None
    assert_kept(tmp_path / "run", weights[2])
    assert load("cats_dogs", tmp_path / "run").size == 30


def test_a_training_that_was_stopped_inside_an_epoch_ends_with_the_same_weights(whole, data, tmp_path, monkeypatch):
    steps, taken = cats_dogs.train_steps, []

    def stopped(*arguments, **options):
        for loss in steps(*arguments, **options):
            yield loss
            taken.append(loss)
            if len(taken) == 6:
                raise KeyboardInterrupt

    monkeypatch.setattr("training.CHECKPOINT_SECONDS", 0)
    out = tmp_path / "run"
    with monkeypatch.context() as context:
        context.setattr(cats_dogs, "train_steps", stopped)
        status, _, said = command("train", "--data", data, *SMALL, "--out", out)
    assert status == 130 and "--resume" in said
    command("train", "--data", data, "--device", "cpu", "--out", out, "--resume")
    assert (out / "losses.csv").read_text() == (whole[0] / "losses.csv").read_text()
    assert_kept(out, load("cats_dogs", whole[0]).state_dict())


def test_a_run_does_not_go_on_with_other_pictures(data, own_data, tmp_path, monkeypatch):
    words = ["--device", "cpu", "--stages", "16:1:4", "--out", tmp_path / "run"]
    monkeypatch.setattr(cats_dogs.Run, "finish", lambda *_: None)
    command("train", "--data", own_data, *words)
    status, _, _ = command("train", "--data", data, *words, "--resume")
    assert re.fullmatch(r"error: [^\n]+ holds 40 with checksum \w+, but the run was begun with 6 with [^\n]+", status)


def test_tensorboard_gets_scalars_pictures_and_the_graph(data, tmp_path):
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="the optional package tensorboard is not installed",
    )
    command("train", "--data", data, *SMALL, "--tensorboard", "--out", tmp_path / "run")
    tags = reader.EventAccumulator(str(tmp_path / "run")).Reload().Tags()
    assert tags["images"] == ["pictures"] and tags["graph"]
    assert {"train_loss", "validation_loss", "validation_accuracy"} <= set(tags["scalars"])


def lab(words: list[str]) -> None:
    """The command, for a process of its own."""
    sys.argv = ["cats_dogs.py", *words]
    cats_dogs.main()


def test_two_processes_train_together_and_one_speaks(start_two, data, tmp_path):
    words = ["train", "--data", str(data), *SMALL, "--stages", "16:1:8", "--out", str(tmp_path / "run")]
    first, second = start_two(*[partial(lab, words)] * 2)
    assert (first.status, second.status, second.out) == (0, 0, ""), first.error + second.error
    assert len(first.out.splitlines()) == 4
    assert len(rows_of(tmp_path / "run" / "losses.csv")) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--val-percent", "1"), "argument --val-percent: must be from 0.0 to 0.999, not 1"),
        (("--seed", "-1"), "argument --seed: must be from 0"),
        (("--stages", "0:1:8"), "--stages: a number of '0:1:8' must be from"),
        (("--stages", "32:1:1"), "BatchNorm needs more than one picture of 32x32 at a time: choose larger batches"),
        (("--stages", "16:1:33"), "a batch of 33 is more than the 32 pictures to train on"),
        (("--device", "tpu"), "unknown device 'tpu'"),
        (("--resume",), "--resume needs --out DIR"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(data, tmp_path, words, message):
    out = () if "--resume" in words else ("--out", tmp_path / "run")
    status, _, said = command("train", "--data", data, *out, *words)
    assert re.search(f"error: {re.escape(message)}[^\n]*$", said.strip() if status == 2 else status)
    assert not (tmp_path / "run").exists()


# Telling cats from dogs


class Red(torch.nn.Module):
    """Knows the cats of this file by their colour, and looks only at the left half."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.mirrored = True
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x[..., : x.shape[3] // 2].mean(dim=(2, 3))[:, ::2]


@pytest.fixture
def red(tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "red", Red)
    scores.save_network(tmp_path / "red.pth", Red(2), "red", 16, mirrored=True)
    return tmp_path / "red.pth"


def test_validating_ends_with_the_share_and_the_number_of_right_answers(data, red):
    assert command("validate", "--data", data, "--model", red) == (
        None,
        "cat: 20 taken for cat, 0 taken for dog\ndog: 0 taken for cat, 20 taken for dog\nAccuracy: 100.00% (40/40)\n",
        "",
    )


def test_wrong_answers_and_damaged_pictures_do_not_count_as_right(own_data, red):
    (own_data / "cat" / "cat.1.jpg").write_text("")
    (own_data / "dog" / "dog.0.jpg").rename(own_data / "cat" / "dog.0.jpg")
    table = own_data.parent / "table.csv"
    status, printed, said = command("validate", "--data", own_data, "--model", red, "--table", table)
    assert (status, printed.splitlines()[-1]) == (None, "Accuracy: 80.00% (4/5)")
    assert table.read_text().split() == ["is,cat,dog", "cat,2,1", "dog,0,2"]
    assert said.endswith("skipped 1 of 6 pictures\n")


def test_a_picture_and_its_mirror_have_the_same_probabilities():
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    answers = probabilities(Red(2), images)
    assert torch.allclose(answers, probabilities(Red(2), images.flip(3)))
    assert torch.allclose(answers.sum(dim=1), torch.ones(3))
    once = Red(2)(normalize(images)).softmax(dim=1)
    assert not torch.allclose(answers, once, atol=1e-4)
    network = Red(2)
    network.mirrored = False
    assert torch.equal(probabilities(network, images), once)


def test_what_learned_in_the_tutorials_way_is_asked_once_and_ours_twice(whole, data, tmp_path):
    assert load("cats_dogs", whole[0]).mirrored and load("cats_dogs").mirrored
    words = ["--recipe", "seed", "--out", tmp_path / "run"]
    assert command("train", "--data", data, *SMALL, *words)[0] is None
    assert not load("cats_dogs", tmp_path / "run").mirrored


def test_a_resnet_learns_in_our_way_too(data, tmp_path):
    words = ["--network", "resnet18", "--recipe", "ours", "--stages", "32:1:8", "--out", tmp_path / "run"]
    assert command("train", "--data", data, *SMALL, *words)[0] is None
    assert load("cats_dogs", tmp_path / "run").mirrored


def test_predicting_prints_a_line_for_each_photo(data, red):
    photos = data / "cat" / "cat.0.jpg", data / "dog" / "dog.0.jpg"
    status, printed, _ = command("predict", *photos, "--model", red)
    lines = zip(photos, ("cat", "dog"), printed.splitlines(), strict=True)
    assert not status and all(re.fullmatch(rf"{photo}: {name} [5-9]\d\.\d%", line) for photo, name, line in lines)


def test_a_photo_that_cannot_be_read_is_an_error_but_the_others_are_told(data, red, tmp_path):
    status, printed, said = command("predict", tmp_path / "none.jpg", data / "cat" / "cat.0.jpg", "--model", red)
    assert status == 1 and "cat.0.jpg: cat" in printed
    assert re.fullmatch("error: there is no picture [^\n]+none.jpg\n", said)


def test_missing_weights_are_refused(data, tmp_path):
    status, _, _ = command("validate", "--data", data, "--model", tmp_path / "a.pth")
    assert re.fullmatch("error: there are no weights [^\n]+", status)


@pytest.mark.parametrize("held", [b"hello", b"the weights", "model.pth", "labs/weights/lenet.pth", "labs/resnet.py"])
def test_a_file_of_anything_else_is_refused_as_weights(tmp_path, held):
    path = tmp_path / "a.pth"
    path.write_bytes(held if isinstance(held, bytes) else (ROOT / held).read_bytes())
    status, _, _ = command("predict", "a.jpg", "--model", path)
    assert re.fullmatch("error: [^\n]+a.pth does not hold the weights of cats_dogs[^\n]+", status)


def test_the_weights_in_the_repository_are_small_and_know_real_cats_and_dogs(tmp_path):
    assert SHIPPED["cats_dogs"].path.stat().st_size < 2_000_000
    if not TAR.exists():
        pytest.skip("the pictures of cats and dogs are not here")
    with tarfile.open(TAR) as archive:
        names = [name for name in archive.getnames() if re.fullmatch(r"val/(cat|dog)/\S+0\.jpg", name)]
        archive.extractall(tmp_path, members=[archive.getmember(name) for name in names], filter="data")
    _, printed, _ = command("validate", "--data", tmp_path / "val")
    assert float(re.search(r"([\d.]+)%", printed)[1]) > 85


# The comparison


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Where the comparison keeps what it finds, in this test."""
    monkeypatch.setattr(scores, "RESULTS", tmp_path)
    monkeypatch.setattr(scores, "FIGURE", tmp_path / "curves.png")
    # What is compared here are --quick runs, which `to_keep` refuses.
    monkeypatch.setattr(scores, "to_keep", lambda run, script: scores.finished(run, script)["settings"])
    return tmp_path


def keep_another(kept: Path, run: Path, **changed) -> dict[str, object]:
    """Leaves the result of another run there, and returns it, of the same pictures as `run` if nothing else is said."""
    pictures = scores.finished(run, cats_dogs.SCRIPT)["settings"]["pictures"]
    result = {"pictures": pictures, "accuracy": 0.9, "right": 36, "count": 40, "epochs": 305, **changed}
    (kept / "labs").mkdir()
    (kept / "labs" / "cats_dogs.json").write_text(json.dumps({"small_ours": result}))
    return result


def test_the_comparison_keeps_each_runs_result_and_its_curves_once(whole, data, kept):
    for _ in range(2):
        status, printed, _ = command("compare", whole[0], "--data", data)
        assert status is None
    ((name, result),) = json.loads((kept / "labs" / "cats_dogs.json").read_text()).items()
    assert result["accuracy"] == result["right"] / 40 and result["network"] == "small" and result["device"] == "cpu"
    assert printed == f"{name}: {result['accuracy']:.2%} ({result['right']}/40), 2 epochs\n"
    rows = rows_of(kept / "labs" / "cats_dogs_history.csv")
    assert [(row["run"], row["epoch"]) for row in rows] == [(name, "1"), (name, "2")]
    assert (kept / "curves.png").exists()


def test_an_epoch_that_was_held_up_does_not_count_in_the_comparison():
    history = [{"size": size, "seconds": seconds} for size, seconds in ((96, 5), (96, 700), (96, 6), (160, 15))]
    assert scores.typical_seconds(history) == 3 * 6 + 15


def test_no_run_takes_the_place_of_one_with_other_settings(whole, data, kept):
    usual = {"network": "small", "recipe": "ours", "stages": STAGES["ours"], "val_percent": 0.2, "seed": 0}
    usual |= {"quick": False, "pictures": "2000 with checksum c050c5c5"}
    published = keep_another(kept, whole[0])
    assert key_of(usual) == "small_ours"
    assert command("compare", whole[0], "--data", data)[0] is None
    results = json.loads((kept / "labs" / "cats_dogs.json").read_text())
    assert list(results) == ["small_ours", "small_ours_stages32:2:8_quick"]
    assert results["small_ours"] == published
    changes = ({"seed": 1}, {"val_percent": 0.0}, {"stages": "32:2:8"}, {"quick": True}, {"network": "plain"})
    assert len({key_of({**usual, **change}) for change in ({}, *changes)}) == 6


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"pictures": "2000 with checksum 00000000"}, "learned other pictures"),
        ({"count": 1000}, "has other pictures (40) than those that the kept runs were tested on"),
    ],
)
def test_a_run_of_other_pictures_has_no_place_in_the_comparison(whole, data, kept, changed, said):
    keep_another(kept, whole[0], **changed)
    assert said in command("compare", whole[0], "--data", data)[0]
    assert list(json.loads((kept / "labs" / "cats_dogs.json").read_text())) == ["small_ours"]


def test_a_quick_run_has_no_place_in_the_comparison(whole, data, tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "RESULTS", tmp_path)
    assert command("compare", whole[0], "--data", data)[0].startswith(f"error: {whole[0]} is a --quick run")
    assert not list(tmp_path.iterdir())


def test_without_a_run_the_comparison_draws_what_is_kept(whole, data, kept):
    command("compare", whole[0], "--data", data)
    (kept / "curves.png").unlink()
    command("compare", "--data", kept / "no such folder")
    assert (kept / "curves.png").exists()


def test_a_folder_without_a_finished_run_is_not_compared(data, kept):
    status, _, _ = command("compare", kept, "--data", data)
    assert status == f"error: {kept} holds no finished run"
    assert command("compare")[0] == "error: no run is kept yet: name the folders of finished ones"
