"""What the labs have in common: they start at once, and each shipped network is found by its name."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from labs import weights
from labs.commands import name_of
from labs.weights import NETWORKS, load
from training import ROOT, save_weights

LABS = sorted(path.parent.name for path in (ROOT / "labs").glob("*/__main__.py"))


def modules_after(code: str) -> set[str]:
    """The modules that a Python of its own has loaded after `code`."""
    code += "\nimport sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def test_no_lab_and_no_report_loads_before_its_work_what_takes_as_long_as_pytorch():
    assert len(LABS) == 13
    reports = "import report.tables, report.harness, report.fill, report.handin, report.draw_car\n"
    loaded = modules_after(reports + "".join(f"import labs.{lab}.__main__\n" for lab in LABS))
    assert not loaded & {"torchvision", "matplotlib", "gradio", "torch._dynamo", "tensorboard"}


def test_the_page_of_one_network_loads_no_other():
    loaded = modules_after("import labs.digit_page.__main__ as lab; lab.make_page(lab.load('lenet'))")
    ours = {name for name in loaded if name.partition(".")[0] in ("labs", "report") or (ROOT / f"{name}.py").exists()}
    own = {"labs", "labs.digit_page", "labs.digit_page.__main__", "labs.commands", "labs.handwriting", "labs.weights"}
    assert ours == own | {"report", "report.tables", "lenet", "train_lenet", "training", "unet"}


@pytest.mark.parametrize("lab", LABS)
def test_each_lab_has_its_text_and_its_line_in_the_table(lab):
    assert f"python -m labs.{lab}" in (ROOT / "labs" / lab / "README.md").read_text(encoding="utf-8")
    assert f"]({lab}/README.md) |" in (ROOT / "labs" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_shipped_network_is_ready_to_use(name):
    if not NETWORKS[name].path.exists():
        pytest.skip("not here yet" if (ROOT / ".git").exists() else "the hand-in's archive leaves it out")
    network = load(name)
    assert not network.training
    assert all(value.dtype == torch.float32 for value in network.parameters())


def test_what_a_hand_in_leaves_out_is_one_error_that_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(NETWORKS, "cats_dogs", NETWORKS["cats_dogs"]._replace(path=tmp_path / "cats_dogs.pth"))
    with pytest.raises(ValueError, match="there are no weights .*cats_dogs.pth: copy them from the repository, a hand"):
        load("cats_dogs")


def test_a_runs_folder_stands_for_the_weights_in_it(tmp_path):
    save_weights(tmp_path / "lenet.pth", load("lenet"), torch.float16)
    network = load("lenet", tmp_path)
    assert torch.equal(network.C1.weight, load("lenet").C1.weight.half().float())


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "unet"])
@pytest.mark.parametrize("held", [b"", b"hello", "model.pth", "LICENSE"])
def test_what_is_not_a_networks_weights_is_refused_by_its_name(tmp_path, name, held):
    path = tmp_path / "a.pth"
    path.write_bytes(held if isinstance(held, bytes) else (ROOT / held).read_bytes())
    with pytest.raises(ValueError, match=f"^[^\n]+a.pth does not hold the weights of {name}: give a run's [^\n]+$"):
        load(name, path)


@pytest.mark.parametrize("fault", ["a flipped bit", "no number"])
def test_weights_that_are_damaged_or_no_numbers_are_refused(tmp_path, fault):
    path, network = tmp_path / "lenet.pth", load("lenet")
    if fault == "no number":
        network.C1.bias.data[0] = torch.nan
    save_weights(path, network)
    if fault == "a flipped bit":
        held = bytearray(path.read_bytes())
        held[len(held) // 2] ^= 1
        path.write_bytes(held)
    with pytest.raises(ValueError, match="lenet.pth does not hold the weights of lenet: give a run's lenet.pth$"):
        load("lenet", path)


@pytest.mark.parametrize("name", NETWORKS)
def test_missing_weights_are_said_to_be_missing(tmp_path, name):
    with pytest.raises((ValueError, OSError), match="a.pth"):
        load(name, tmp_path / "a.pth")


def test_what_is_not_as_usual_is_in_a_results_name():
    usual = {"lr": 0.1, "seed": 0, "validate": False}
    assert name_of("a", {**usual, "pictures": "120"}, usual) == "a"
    assert name_of("a", {"lr": 0.25, "seed": 2, "validate": True}, usual) == "a_lr0.25_seed2_validate"


def test_only_the_weights_of_a_finished_run_are_shipped(tmp_path, monkeypatch):
    target, original = tmp_path / "shipped.pth", load("lenet_original")
    monkeypatch.setitem(NETWORKS, "lenet_original", NETWORKS["lenet_original"]._replace(path=target))
    run = tmp_path / "run"
    run.mkdir()

    def keep() -> object:
        monkeypatch.setattr(sys, "argv", ["weights", "keep", "lenet_original", str(run)])
        with pytest.raises(SystemExit) as stop:
            weights.main()
        return stop.value.code

    save_weights(run / "lenet.pth", load("lenet"))
    assert keep() == f"error: {run} holds no finished run"
    torch.save({"script": "train_lenet.py", "finished": True, "settings": {}}, run / "checkpoint.pth")
    assert keep() == f"error: {run / 'lenet.pth'} does not hold the weights of lenet_original: give a run's lenet.pth"
    assert not target.exists()
    save_weights(run / "lenet.pth", original)
    weights.main()
    assert torch.equal(load("lenet_original", target).C1.weight, original.C1.weight)


def test_a_lab_runs_as_a_module_from_the_root():
    done = subprocess.run([sys.executable, "-m", "labs.cats_dogs", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: python -m labs.cats_dogs")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("module", ["labs.app", "labs.shapes", "report.benchmark"])
def test_ctrl_c_while_a_command_loads_ends_it_without_a_word(module, tmp_path):
    (tmp_path / "torch.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)")
    words, pipes = [sys.executable, "-m", module], dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(words, cwd=ROOT, env=environment, text=True, **pipes) as process:
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 130
