"""What every training script here shares around its loop: device, whole files, run folders, checkpoints, curves.

The loop itself is not here: it is the lesson, and stands in `train_lenet.py` and `train_unet.py`.

How a run survives: everything it needs to go on is in `checkpoint.pth`, which is replaced in one step, and each epoch
draws its random numbers from a generator of its own, seeded by (seed, epoch). So there is no random state to lose, and
a run that was killed and resumed ends with the same bits as one that never was.
"""

import contextlib
import csv
import io
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def pick_device(name: str) -> torch.device:
    """The device "auto", "cpu", "cuda" or "cuda:N"; "auto" is CUDA where there is one, else the CPU.

    Raises ValueError, its message meant for the user, when there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N")
    index = int(name.partition(":")[2] or 0)
    if name != "cpu" and index >= torch.cuda.device_count():
        raise ValueError(f"no device {name} here (CUDA devices found: {torch.cuda.device_count()}): use cpu or auto")
    return torch.device(name)


def epoch_generator(seed: int, epoch: int, index: int = 0) -> torch.Generator:
    """The source of all random choices of one epoch, or of its sample `index`, in a run interrupted or not."""
    return torch.Generator().manual_seed(((seed * 1_000_003 + epoch) * 10_000_019 + index) % 2**63)


def environment(device: torch.device) -> dict[str, str]:
    """What the exact bits of a result depend on besides the settings; kept in the checkpoint."""
    capability = torch.backends.cpu.get_cpu_capability()
    return {
        "machine": f"{platform.system()} {platform.machine()} {capability}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": str(torch.get_num_threads()),
        "processes": os.environ.get("WORLD_SIZE", "1"),
        "torch": str(torch.__version__),
    }


@contextlib.contextmanager
def write_whole(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to; it takes the place of `path` only if the block ends well.

    So a full disk, a crash or Ctrl-C never leaves half a file, nor harms the one that was there. Raises OSError.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error.__cause__, OSError):  # else worded by an inner one
            failure = OSError(f"cannot write {path}: {error.strerror or error}")
            failure.errno = error.errno
            raise failure from error
        raise


def open_run(out: Path | None, name: str, resume: bool) -> Path:
    """Makes the folder of a run, by default `runs/NAME-DATE-TIME`, and refuses one that already holds a run."""
    by_default = out is None
    if by_default:
        if resume:
            sys.exit("error: --resume needs --out DIR, the folder of the run to go on with")
        out = Path("runs", f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        held = [file for file in ("checkpoint.pth", f"{name}.pth", "model.pth", "history.csv") if (out / file).exists()]
        if held and "checkpoint.pth" not in held:
            sys.exit(f"error: {out} holds a run ({', '.join(held)}) without its checkpoint.pth: choose another --out")
        if held and not resume:
            sys.exit(f"error: {out} already holds a run ({', '.join(held)}): add --resume, or choose another --out")
        out.mkdir(parents=True, exist_ok=not by_default)
        with write_whole(out / "probe"):
            (out / ".probe.part").touch()
        (out / "probe").unlink()
    except OSError as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        sys.exit(f"error: cannot write to --out {out}: {cause.strerror or cause}")
    return out


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Writes `checkpoint` whole or not at all; raises OSError. (`torch.save` to a full disk raises RuntimeError.)"""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    with write_whole(path) as part:
        part.write_bytes(buffer.getbuffer())


def save_weights(path: Path, model: torch.nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Writes `model`'s weights as numbers of `dtype` on the CPU, so that any machine can read them."""
    save_checkpoint(path, {name: value.to("cpu", dtype, copy=True) for name, value in model.state_dict().items()})


def load_checkpoint(path: Path, script: str) -> dict[str, Any] | None:
    """The checkpoint of `script` in `path`, or None where there is none yet."""
    if not path.exists():
        return None
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch.load raises almost anything for a damaged file, and its words help nobody
        sys.exit(f"error: {path} is damaged or is no checkpoint: start the run again with another --out")
    if not isinstance(checkpoint, dict) or checkpoint.get("script") != script:
        sys.exit(f"error: {path} is not a checkpoint of {script}: give the --out of one of its runs")
    return checkpoint


def settle(given: dict[str, Any], defaults: dict[str, Any], checkpoint: dict[str, Any] | None) -> dict[str, Any]:
    """The settings of a run: those given (not None), then the checkpoint's, or where there is none the defaults."""
    given = {name: value for name, value in given.items() if value is not None}
    if checkpoint is None:
        return {**defaults, **given}
    settings = checkpoint["settings"]
    differ = [
        f"{name} {value} (the run has {settings[name]})" for name, value in given.items() if value != settings[name]
    ]
    if differ:
        sys.exit(f"error: --resume with other settings than the run's: {', '.join(differ)}")
    return settings


def start_run(
    out: Path | None, resume: bool, script: str, given: dict[str, Any], defaults: dict[str, Any], device: torch.device
) -> tuple[Path, dict[str, Any], dict[str, Any] | None]:
    """Opens the run that the command line asks for, says what will be done, and ends the command if it is done already.

    Returns the run's folder, its settings, and its checkpoint, None for a run that begins.
    """
    out = open_run(out, script.removeprefix("train_").removesuffix(".py"), resume)
    checkpoint = load_checkpoint(out / "checkpoint.pth", script)
    settings = settle(given, defaults, checkpoint)
    if checkpoint is None:
        if resume:
            print(f"No checkpoint in {out} yet: starting afresh")
    elif checkpoint["finished"]:
        print(f"{out} is finished: all its {len(checkpoint['history'])} epochs are done. Nothing to do.")
        sys.exit()
    else:
        print(f"Going on with {out} after epoch {len(checkpoint['history'])}")
        warn_of_other_environment(checkpoint, device)
    return out, settings, checkpoint


def warn_of_other_environment(checkpoint: dict[str, Any], device: torch.device) -> None:
    """Says on standard error what will keep a resumed run from being exact; it goes on all the same."""
    here, there = environment(device), checkpoint["environment"]
    differ = [
        f"{name} {value} (the run began on {there[name]})"
        for name, value in here.items()
        if value != there.get(name, value)
    ]
    if differ:
        print(f"warning: the result will not be exact to the bit: {', '.join(differ)}", file=sys.stderr)


def python() -> str:
    """The interpreter that runs this, as it can be typed here: relative where it lies below the working folder."""
    with contextlib.suppress(ValueError):
        return str(Path(sys.executable).relative_to(Path.cwd()))
    return sys.executable


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps other processes that train out of `folder` while the block runs; ends the command if one is in it."""
    lock = FileLock(folder / ".lock")  # the system frees it when its process ends, in whatever way
    try:
        lock.acquire(blocking=False)
    except Timeout:
        sys.exit(f"error: another training is at work in {folder}: wait until it ends, or choose another --out")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def quote_for_powershell(words: list[str]) -> str:
    """The words of a command as PowerShell and cmd take them; a bare comma would part a word in PowerShell."""
    return " ".join(f'"{word}"' if set(word) & set(" ,;&()") else word for word in words)


@contextlib.contextmanager
def resumable(out: Path) -> Iterator[None]:
    """Turns Ctrl-C, a loss that is no number, and a file that cannot be written into one line and an exit status.

    Meanwhile no other process can train in `out`.
    """
    try:
        with alone_in(out):
            yield
    except KeyboardInterrupt:
        words = [word for word in sys.argv if word != "--resume"]
        if not any(word == "--out" or word.startswith("--out=") for word in words):
            words += ["--out", str(out)]
        join = quote_for_powershell if os.name == "nt" else shlex.join
        processes = os.environ.get("LOCAL_WORLD_SIZE")
        launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"] if processes else []
        print(f"\nStopped. To go on: {join([python(), *launcher, *words, '--resume'])}", file=sys.stderr)
        sys.exit(130)
    except (FloatingPointError, OSError) as error:
        message = getattr(error, "strerror", None) or error
        if getattr(error, "filename", None):
            message = f"{error.filename}: {message}"
        sys.exit(f"error: {message} (the last good checkpoint, if there is one, is in {out})")


def write_history(path: Path, history: list[dict[str, Any]]) -> None:
    """One row an epoch, as CSV."""
    with write_whole(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def plot_curves(path: Path, history: list[dict[str, Any]], panels: dict[str, dict[str, str]]) -> None:
    """Draws one panel beside the other: {panel title: {label of a curve: its column in the history}}."""
    figure = Figure(figsize=(5 * len(panels), 3.6), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for label, column in curves.items():
            axes.plot(epochs, [row[column] for row in history], marker="o", markersize=3, label=label)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    with write_whole(path) as part:
        figure.savefig(part, dpi=150, bbox_inches="tight")
