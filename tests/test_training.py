"""Files are whole or as they were, a run is never overwritten, and what goes wrong is told in one line."""

import argparse
import csv
import errno
import importlib.util
import io
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import pytest
import torch
from PIL import Image

import training
from training import (
    Finished,
    Run,
    between,
    command,
    environment,
    epoch_generator,
    lacks_memory,
    load_checkpoint,
    pick_device,
    plot_curves,
    save_checkpoint,
    save_weights,
    told,
    write_rows,
    write_whole,
)

DEFAULTS = {"epochs": 10, "seed": 0}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def a_run(out: Path | None = None, resume: bool = False, **given) -> Run:
    """What the command line of a training script makes of --out, --resume and settings; not yet entered."""
    settings = {**dict.fromkeys(DEFAULTS), **given}
    args = argparse.Namespace(out=out, resume=resume, **{"tensorboard": False, **settings})
    return Run("train_lenet.py", args, DEFAULTS, CPU)


def opened(*arguments) -> Path:
    """The folder of a run that began and ended at once."""
    with a_run(*arguments) as run:
        return run.out


def checkpoint_of(out: Path, finished: bool = False, **changes) -> Path:
    """Leaves in `out` the checkpoint of a run that was stopped after its first epoch."""
    checkpoint = {"script": "train_lenet.py", "settings": {"epochs": 3, "seed": 7}, "environment": environment(CPU)}
    checkpoint |= {"history": [{"epoch": 1}], "losses": [], "steps_done": 0, "finished": finished}
    out.mkdir(exist_ok=True)
    save_checkpoint(out / "checkpoint.pth", {**checkpoint, **changes})
    return out


def error_of(function, *arguments) -> str:
    """The one line with which `function` ends a command."""
    with pytest.raises(SystemExit) as stop, told():
        function(*arguments)
    assert re.fullmatch("error: [^\n]+", stop.value.code)
    return stop.value.code


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:x", "CPU", "cuda:-1", ""])
def test_an_unknown_device_is_refused_by_name(name):
    with pytest.raises(ValueError, match="unknown device .*: use auto, cpu, cuda or cuda:N"):
        pick_device(name)


def test_a_cuda_device_beyond_those_here_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="no device cuda:1 here .*found: 1.*: use cpu or auto"):
        pick_device("cuda:1")


def test_a_cuda_device_that_is_here_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize(("present", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_cuda_where_there_is_one(monkeypatch, present, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(present))
    assert pick_device("auto") == torch.device(device)


def test_an_epoch_draws_the_same_numbers_whenever_it_is_run():
    draws = [torch.rand(4, generator=epoch_generator(3, 5)) for _ in range(2)]
    assert torch.equal(*draws)


@pytest.mark.parametrize(("seed", "epoch"), [(3, 6), (4, 5), (5, 3)])
def test_another_epoch_or_seed_draws_other_numbers(seed, epoch):
    draws = [torch.rand(4, generator=epoch_generator(*pair)) for pair in ((3, 5), (seed, epoch))]
    assert not torch.equal(*draws)


def test_seeds_epochs_and_samples_all_have_generators_of_their_own():
    numbers = [epoch_generator(*given).initial_seed() for given in itertools.product((0, 1, 2), range(50), range(50))]
    assert len(set(numbers)) == 3 * 50 * 50


def test_the_largest_seed_has_a_generator():
    epoch_generator(2**32 - 1, 1_000_000)


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    with write_whole(tmp_path / "file.txt") as part:
        part.write_text("new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file.txt", "new")]


def test_the_old_file_stands_until_the_block_ends(tmp_path):
    (tmp_path / "file.txt").write_text("old")
    with write_whole(tmp_path / "file.txt") as part:
        part.write_text("new")
        assert (tmp_path / "file.txt").read_text() == "old"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, OSError])
def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path, failure):
    (tmp_path / "file.txt").write_text("old")
    with pytest.raises(failure), write_whole(tmp_path / "file.txt") as part:
        part.write_text("half")
        raise failure
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file.txt", "old")]


def test_a_full_disk_is_told_with_the_name_of_the_file_that_was_wanted(tmp_path):
    with pytest.raises(OSError, match="cannot write .*file.txt: No space left") as failure:
        with write_whole(tmp_path / "file.txt"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert failure.value.errno == errno.ENOSPC


def test_a_temporary_file_that_a_killed_run_left_is_in_nobodys_way(tmp_path):
    with write_whole(tmp_path / "file.txt") as part:
        part.write_text("half")
    part.write_text("half")
    with write_whole(tmp_path / "file.txt") as part:
        part.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("name", ["车" * 83 + ".png", "x" * 251 + ".png", "$x^2$.txt", "a" * 255])
def test_a_name_may_be_as_long_as_the_system_allows(tmp_path, name):
    with write_whole(tmp_path / name) as part:
        part.write_text("new")
    assert os.listdir(tmp_path) == [name]


def test_two_files_of_one_folder_can_be_written_at_once(tmp_path):
    with write_whole(tmp_path / "a.txt") as one, write_whole(tmp_path / "b.txt") as other:
        one.write_text("a")
        other.write_text("b")
    assert [(tmp_path / name).read_text() for name in ("a.txt", "b.txt")] == ["a", "b"]


def test_the_content_is_on_the_disk_before_the_file_takes_its_place(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    with write_whole(tmp_path / "file.txt") as part:
        part.write_text("new")
    assert done == ["fsync", "replace"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes any bytes for a name")
def test_a_name_that_is_no_utf_8_stays_readable_in_a_table(tmp_path):
    name = os.fsdecode("汽车.jpg".encode("gbk"))
    write_rows(tmp_path / "scores.csv", [{"photograph": name}])
    assert (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()[1].endswith(".jpg")


def test_a_run_gets_a_folder_of_its_own_named_by_date_and_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = opened()
    assert out.is_dir()
    assert re.fullmatch(r"runs/lenet-\d{8}-\d{6}", out.as_posix())


def test_opening_a_run_leaves_nothing_in_its_folder(tmp_path):
    assert list(opened(tmp_path / "a" / "b").iterdir()) == []


def test_other_files_in_the_folder_are_no_run(tmp_path):
    (tmp_path / "notes.txt").touch()
    assert opened(tmp_path) == tmp_path


@pytest.mark.parametrize("file", ["checkpoint.pth", "lenet.pth", "history.csv"])
def test_a_folder_that_holds_a_run_is_refused(tmp_path, file):
    (tmp_path / file).touch()
    assert file in error_of(opened, tmp_path)


@pytest.mark.parametrize("file", ["lenet.pth", "history.csv"])
def test_a_run_whose_checkpoint_is_gone_is_not_overwritten_by_resuming_it(tmp_path, file):
    (tmp_path / file).touch()
    assert "without its checkpoint.pth: choose another --out" in error_of(opened, tmp_path, True)


def test_resuming_needs_to_know_which_run():
    assert "--resume needs --out DIR" in error_of(opened, None, True)


@pytest.mark.parametrize("out", ["file.txt", "file.txt/run", "x" * 300], ids=["a file", "in a file", "too long"])
def test_a_folder_that_cannot_be_made_is_an_error(tmp_path, out):
    (tmp_path / "file.txt").touch()
    assert f"cannot write to --out {tmp_path / out}" in error_of(opened, tmp_path / out)


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)  # the administrator may write wherever the mode says no
    assert "Permission denied" in error_of(opened, tmp_path)


def claims_cuda(monkeypatch, tensor: torch.Tensor) -> None:
    """Lets `torch.save` believe that `tensor`'s own numbers, though not a copy of them, lie on the first GPU."""
    tag, own = torch.serialization.location_tag, tensor.untyped_storage().data_ptr()
    monkeypatch.setattr(
        torch.serialization, "location_tag", lambda storage: "cuda:0" if storage.data_ptr() == own else tag(storage)
    )


def test_a_checkpoint_from_a_gpu_can_be_read_without_one(tmp_path, monkeypatch):
    weight = torch.arange(3.0)
    claims_cuda(monkeypatch, weight)
    save_checkpoint(tmp_path / "checkpoint.pth", {"script": "a.py", "weight": weight})
    assert load_checkpoint(tmp_path / "checkpoint.pth", "a.py")["weight"].device == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can read weights of a GPU")
def test_weights_are_saved_so_that_a_machine_without_a_gpu_reads_them_as_they_are(tmp_path, monkeypatch):
    model = torch.nn.Linear(3, 1, bias=False)
    claims_cuda(monkeypatch, model.weight)
    torch.save(model.state_dict(), tmp_path / "claims.pth")
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(tmp_path / "claims.pth", weights_only=True)
    save_weights(tmp_path / "weights.pth", model)
    assert torch.equal(torch.load(tmp_path / "weights.pth", weights_only=True)["weight"], model.weight)


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    save_checkpoint(tmp_path / "checkpoint.pth", {"script": "a.py", "model": {"weight": torch.arange(3.0)}})
    checkpoint = load_checkpoint(tmp_path / "checkpoint.pth", "a.py")
    assert checkpoint["model"]["weight"].tolist() == [0, 1, 2]


def test_where_there_is_no_checkpoint_there_is_none(tmp_path):
    assert load_checkpoint(tmp_path / "checkpoint.pth", "a.py") is None


@pytest.mark.parametrize("bytes_kept", [0, 1, 100, 400])
def test_a_truncated_checkpoint_is_an_error(tmp_path, bytes_kept):
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, {"script": "a.py", "model": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:bytes_kept])
    assert f"{path} is damaged" in error_of(load_checkpoint, path, "a.py")


@pytest.mark.parametrize("place", [0.3, 0.6])
def test_a_single_flipped_bit_in_a_checkpoint_is_noticed(tmp_path, place):
    path = tmp_path / "checkpoint.pth"
    save_checkpoint(path, {"script": "a.py", "model": torch.arange(10_000.0)})
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    assert f"{path} is damaged" in error_of(load_checkpoint, path, "a.py")


def test_a_text_file_is_no_checkpoint(tmp_path):
    (tmp_path / "checkpoint.pth").write_text("hello\nworld\n")
    assert "is no checkpoint" in error_of(load_checkpoint, tmp_path / "checkpoint.pth", "a.py")


@pytest.mark.parametrize(
    "foreign", [{"weight": torch.zeros(2)}, {"script": "b.py"}, torch.zeros(2)], ids=["weights", "script", "tensor"]
)
def test_a_foreign_checkpoint_is_an_error_that_names_the_script(tmp_path, foreign):
    torch.save(foreign, tmp_path / "checkpoint.pth")
    assert "is not a checkpoint of a.py" in error_of(load_checkpoint, tmp_path / "checkpoint.pth", "a.py")


class Intruder:
    """What a pickle of it does when it is read: makes the folder INTRUDED."""

    def __reduce__(self):
        return os.mkdir, ("INTRUDED",)


def test_a_checkpoint_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"script": "a.py", "model": Intruder()}, "checkpoint.pth")
    error_of(load_checkpoint, Path("checkpoint.pth"), "a.py")
    assert not Path("INTRUDED").exists()


def test_settings_not_given_are_the_defaults():
    assert a_run(seed=7).settings == {"epochs": 10, "seed": 7}


def test_settings_not_given_are_the_checkpoints_when_there_is_one(tmp_path):
    assert a_run(checkpoint_of(tmp_path), resume=True, seed=7).settings == {"epochs": 3, "seed": 7}


def test_settings_other_than_the_checkpoints_are_listed(tmp_path):
    checkpoint_of(tmp_path)
    message = error_of(lambda: a_run(tmp_path, resume=True, epochs=4, seed=0))
    assert message.endswith(": epochs 4 (the run has 3), seed 0 (the run has 7)")


def test_the_same_environment_needs_no_warning(tmp_path, capsys):
    opened(checkpoint_of(tmp_path), True)
    assert capsys.readouterr() == (f"Going on with {tmp_path} after epoch 1\n", "")


@pytest.mark.parametrize("name", ["machine", "device", "threads", "processes", "torch"])
def test_another_environment_is_warned_of_by_name(tmp_path, capsys, name):
    opened(checkpoint_of(tmp_path, environment={**environment(CPU), name: "another"}), True)
    warning = capsys.readouterr().err
    assert re.fullmatch(rf"warning: .*: {name} [^\n]* \(the run began on another\)\n", warning)


def test_a_run_that_an_older_version_began_is_gone_on_with(tmp_path, capsys):
    older = {key: value for key, value in environment(CPU).items() if key != "processes"}
    opened(checkpoint_of(tmp_path, environment=older), True)
    assert "processes 1 (the run began on None)" in capsys.readouterr().err


def test_a_finished_run_ends_the_command_without_an_error(tmp_path, capsys):
    command(lambda: a_run(checkpoint_of(tmp_path, finished=True), resume=True))()
    assert capsys.readouterr().out.endswith("is finished: all its 1 epochs are done. Nothing to do.\n")


def test_a_notebook_is_told_by_exceptions_and_nothing_is_printed(tmp_path, capsys):
    with pytest.raises(ValueError, match="needs --out DIR"):
        a_run(resume=True)
    with pytest.raises(Finished):
        a_run(checkpoint_of(tmp_path, finished=True), resume=True)
    assert capsys.readouterr() == ("", "")


def a_training(
    out: Path, epochs: int, stop_at: tuple[int, int] | None = None, draws: bool = False, **given
) -> list[float]:
    """A whole training script around its loop, of three steps an epoch: what its weight was after each epoch.

    Stopped by Ctrl-C at `stop_at`, an epoch and a step.
    """
    with a_run(out, resume=True, epochs=epochs, **given) as run:
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(model.weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        run.restore(model=model, optimizer=optimizer)
        for epoch in run.epochs(epochs):
            generator = epoch_generator(run.settings["seed"], epoch)
            for step, x in list(enumerate(torch.rand(3, generator=generator)))[run.steps_done :]:
                if (epoch, step) == stop_at:
                    if run.writer is not None:
                        run.writer.flush()  # so that what is done again has been drawn
                    raise KeyboardInterrupt
                optimizer.zero_grad()
                (model.weight * x * (torch.rand(()) if draws else 1)).sum().backward()
                optimizer.step()
                run.step({"epoch": epoch, "loss": x.item()})
            run.record({"weight": model.weight.item()})
        run.finish({"Weight": {"weight": [row["weight"] for row in run.history]}})
    return [row["weight"] for row in run.history]


@pytest.fixture(scope="module")
def whole_training(tmp_path_factory) -> tuple[Path, list[float]]:
    """The folder of a training of three epochs that nothing stopped, and its weights."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, a_training(out, 3)


def test_what_draws_from_pytorchs_own_generator_goes_on_exactly_too(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    drawing = [a_training(tmp_path / "whole", 3, draws=True)]
    with pytest.raises(SystemExit):
        a_training(tmp_path / "stopped", 3, (2, 1), draws=True)
    torch.rand(5)
    drawing.append(a_training(tmp_path / "stopped", 3, draws=True))
    assert drawing[0] == drawing[1] and len(set(drawing[0])) == 3


def drawn(out: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of the run in `out`: {tag: (step, value) of each of its points}."""
    reader = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(out)).Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="the optional package tensorboard is not installed"
)


@needs_tensorboard
@pytest.mark.parametrize("saves_at_each_step", [True, False])
@pytest.mark.parametrize("stop_at", [(1, 1), (2, 0), (3, 1), (3, 2)])
def test_tensorboard_draws_each_step_and_each_epoch_once_however_often_the_run_was_stopped(
    tmp_path, monkeypatch, stop_at, saves_at_each_step
):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1 if saves_at_each_step else 120)
    with pytest.raises(SystemExit):
        a_training(tmp_path / "run", 3, stop_at, tensorboard=True)
    weights = a_training(tmp_path / "run", 3, tensorboard=True)
    with (tmp_path / "run" / "losses.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    points = drawn(tmp_path / "run")
    assert points.keys() == {"loss", "weight"}
    assert points["loss"] == [(step, pytest.approx(loss)) for step, loss in enumerate(losses, start=1)]
    assert points["weight"] == [(3 * epoch, pytest.approx(weight)) for epoch, weight in enumerate(weights, start=1)]


@needs_tensorboard
def test_without_steps_tensorboard_draws_the_epochs_and_nothing_but_what_was_measured(tmp_path):
    for epochs in (2, 3):  # stopped after the second
        with a_run(tmp_path / "run", resume=True, epochs=3, tensorboard=True) as run:
            run.restore()
            for epoch in run.epochs(epochs):
                run.record({"size": 96, "batch_size": 8, "train_loss": 1 / epoch, "dice": 1 - 1 / epoch})
    points = drawn(tmp_path / "run")
    assert points.keys() == {"train_loss", "dice"}
    assert [step for step, _ in points["dice"]] == [1, 2, 3]


def test_each_step_draws_other_numbers_from_pytorchs_own_generator(tmp_path):
    draws = []
    with a_run(tmp_path) as run:
        run.restore()
        for epoch in run.epochs(2):
            for step in range(3):
                draws.append(torch.rand(()).item())
                run.step({"epoch": epoch, "step": step})
            run.record({})
    assert len(set(draws)) == 6


def test_a_checkpoint_is_written_when_its_time_has_come_and_not_before(tmp_path, monkeypatch):
    now, saved = [0.0], []
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(training, "save_checkpoint", lambda *_: saved.append(now[0]))
    with a_run(tmp_path) as run:
        run.restore()
        for _ in run.epochs(1):
            for now[0] in (50.0, 119.0, 121.0, 130.0, 240.0, 242.0):
                run.step({"loss": 0})
    assert saved == [121.0, 242.0]


def test_the_checkpoint_is_let_go_once_its_parts_have_it(tmp_path):
    model = torch.nn.Linear(1, 1)
    with a_run(checkpoint_of(tmp_path, model=model.state_dict()), resume=True) as run:
        run.restore(model=model)
        assert run.checkpoint is None and not run.is_new


def test_a_table_that_excel_holds_open_is_warned_of_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    replace = os.replace

    def refuse(part, path):
        if Path(path).suffix == ".csv":
            raise PermissionError(errno.EACCES, "Permission denied")
        replace(part, path)

    monkeypatch.setattr(os, "replace", refuse)
    assert len(a_training(tmp_path / "run", 2)) == 2
    said = capsys.readouterr().err
    assert re.search(r"^warning: cannot write .*history.csv: Permission denied: close what", said, re.MULTILINE)
    assert not list((tmp_path / "run").glob(".*part*"))


@pytest.mark.parametrize("stop_at", [(1, 0), (1, 2), (2, 0), (3, 1)])
@pytest.mark.parametrize("seconds", [0, 1000], ids=["a checkpoint each step", "one each epoch"])
def test_a_new_scripts_run_goes_on_exactly_where_it_stopped(whole_training, tmp_path, monkeypatch, stop_at, seconds):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", seconds)
    with pytest.raises(SystemExit):
        a_training(tmp_path / "stopped", 3, stop_at)
    assert a_training(tmp_path / "stopped", 3) == whole_training[1]
    for name in ("losses.csv", "curves.png"):
        assert (tmp_path / "stopped" / name).read_bytes() == (whole_training[0] / name).read_bytes()


@pytest.mark.parametrize(("out", "printed"), [("runs/1", "runs/1"), ("my runs/1", '"my runs/1"')])
@pytest.mark.skipif(os.name == "nt", reason="Windows writes its paths in another way")
def test_ctrl_c_says_how_to_go_on_in_any_shell(capsys, out, printed):
    with pytest.raises(SystemExit) as stop, a_run(Path(out)):
        raise KeyboardInterrupt
    assert stop.value.code == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"Stopped. To go on: the same command with --out {printed} --resume"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's malloc is told to keep memory")
def test_large_maps_use_the_memory_of_those_before_them(tmp_path):
    import resource

    with a_run(tmp_path):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            torch.ones(2**24)
        pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert pages < 5 * 16384  # a map has 16,384 pages; the first few maps cannot use another's


def test_a_second_process_in_the_folder_of_a_run_is_told_of_the_first(tmp_path):
    with a_run(tmp_path):
        assert f"another training is at work in {tmp_path}" in error_of(opened, tmp_path)
    opened(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "failure", [FloatingPointError("the loss became nan"), OSError(errno.ENOSPC, "cannot write x: disk full")]
)
def test_what_ends_a_run_is_one_line_that_says_where_the_last_checkpoint_is(failure):
    def run():
        with a_run(Path("runs/1")):
            raise failure

    message = error_of(run)
    assert failure.args[-1] in message and message.endswith("is in runs/1)".replace("/", os.sep))


def test_a_mistake_in_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), a_run(Path("runs/1")):
        raise ZeroDivisionError


def test_the_history_is_a_csv_of_one_row_an_epoch(tmp_path):
    history = [{"epoch": 1, "test_loss": 0.5}, {"epoch": 2, "test_loss": 0.25}]
    write_rows(tmp_path / "history.csv", history)
    assert (tmp_path / "history.csv").read_bytes() == b"epoch,test_loss\r\n1,0.5\r\n2,0.25\r\n"
    with (tmp_path / "history.csv").open(newline="") as file:
        assert [float(row["test_loss"]) for row in csv.DictReader(file)] == [0.5, 0.25]


@pytest.mark.parametrize("epochs", [1, 30])
def test_the_curves_are_a_picture_twice_as_wide_for_two_panels(tmp_path, epochs):
    history = [{"epoch": epoch, "a": 1 / epoch, "b": 2 / epoch} for epoch in range(1, epochs + 1)]
    a, b = ([row[name] for row in history] for name in ("a", "b"))
    plot_curves(tmp_path / "one.png", history, {"Loss": {"training": a, "test": b}})
    plot_curves(tmp_path / "two.png", history, {"Loss": {"training": a}, "Accuracy": {"test": b}})
    widths = []
    for name in ("one.png", "two.png"):
        with Image.open(tmp_path / name) as picture:
            picture.load()
            widths.append(picture.width)
    assert 1.8 < widths[1] / widths[0] < 2.2


@pytest.mark.parametrize(("values", "scale"), [([0.5, 0.02], "log"), ([0.0, 0.02], "log"), ([0.0, 0.0], "linear")])
def test_curves_are_logarithmic_where_they_can_be(tmp_path, monkeypatch, recwarn, values, scale):
    drawn, savefig = [], matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda *args, **options: drawn.append(args[0]) or savefig(*args, **options)
    )
    plot_curves(tmp_path / "curves.png", [{"epoch": 1}, {"epoch": 2}], {"Error": {"test": values}})
    assert [axes.get_yscale() for axes in drawn[0].axes] == [scale]
    assert not recwarn.list


def test_curves_that_cannot_be_written_leave_the_old_picture(tmp_path, monkeypatch):
    (tmp_path / "curves.png").write_text("old")

    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", refuse)
    with pytest.raises(OSError, match="cannot write .*curves.png"):
        plot_curves(tmp_path / "curves.png", [{"epoch": 1}], {"Loss": {"training": [1]}})
    assert (tmp_path / "curves.png").read_text() == "old"


# How a command ends


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk"])
def test_what_a_console_cannot_spell_stays_readable(monkeypatch, encoding):
    console = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(console, encoding))
    command(lambda: print("车 é", "car"))()
    said = console.getvalue().decode(encoding)
    assert said.strip().endswith("car") and ("车" in said) == (encoding == "gbk")


def started(code: str, **options) -> subprocess.CompletedProcess:
    """What a script does that has `code` in its main."""
    lines = ["import sys", "from training import command, told", "@command", "def main():", f"    {code}", "main()"]
    environment = {**os.environ, "PYTHONPATH": str(training.ROOT), **options.pop("env", {})}
    environment.pop("PYTHONUTF8", None)
    words = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(words, env=environment, stderr=subprocess.PIPE, **{"stdout": subprocess.PIPE, **options})


def test_an_error_is_spelled_too():
    code = "\n    print('车')\n    with told():\n        raise ValueError('no picture 车')"
    done = started(code, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (1, rb"error: no picture \u8f66" + os.linesep.encode())
    assert done.stdout == rb"\u8f66" + os.linesep.encode()


class Notebook:
    """A stream as Jupyter, Spyder and IDLE put in place of standard output: it has no `reconfigure`."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_a_notebooks_stream_is_taken_as_it_is(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Notebook())
    command(lambda: print("done"))()
    assert sys.stdout.text == "done\n"


def test_without_any_streams_a_command_works_silently(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    command(lambda: print("done", file=sys.stderr))()


@pytest.mark.skipif(os.name == "nt", reason="Windows tells a reader that has left in another way")
def test_a_reader_that_leaves_ends_the_command_silently():
    reading, writing = os.pipe()
    os.close(reading)
    done = started("print('line')", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_behind_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = started("print('line')", stdout=full, env={"PYTHONUNBUFFERED": ""})
    assert (done.returncode, done.stderr) == (1, b"error: No space left on device\n")


def test_a_mistake_in_a_command_keeps_its_traceback():
    def main() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        command(main)()


def test_too_little_memory_ends_any_command_with_one_line():
    with pytest.raises(SystemExit, match="^error: not enough memory: choose smaller pictures, batches or networks$"):
        command(lambda: torch.empty(2**60))()


def test_ctrl_c_ends_a_command_silently(capsys):
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        command(main)()
    assert (stop.value.code, *capsys.readouterr()) == (130, "", "")


def test_an_error_of_the_system_is_told_by_the_files_name(tmp_path):
    assert error_of((tmp_path / "none.txt").read_text) == f"error: {tmp_path / 'none.txt'}: No such file or directory"


@pytest.mark.parametrize(
    ("text", "fault"), [("0", "must be from 1 to 9, not 0"), ("10", "must be from 1 to 9, not 10")]
)
def test_a_number_out_of_its_range_is_refused(text, fault):
    with pytest.raises(argparse.ArgumentTypeError, match=fault):
        between(1, 9)(text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried",
            "not enough memory",
        ),
        ("unable to write to file </torch_1_2_3>: No space left on device (28)", "shared memory"),
        ("unable to allocate shared memory(shm) for file </torch_1_2>: Success (0)", "shared memory"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that", "shared memory"),
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "not enough memory"),
        ("unable to open shared memory object </torch_1> in read-write mode: Too many open files (24)", None),
        ("mat1 and mat2 shapes cannot be multiplied", None),
    ],
)
def test_each_lack_of_memory_is_told_by_its_own_name(words, said):
    told = lacks_memory(RuntimeError(words), "choose less")
    assert told is None if said is None else said in told
    assert "choose less" in str(told) or said != "not enough memory"
