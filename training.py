"""What every training script here shares around its loop: the device, whole files, curves, and `Run`.

The loop stands in the scripts. How a run survives: everything it needs to go on is in `checkpoint.pth`, which is
replaced in one step, and each epoch draws its random numbers from a generator of its own, seeded by (seed, epoch): a
run that is killed and resumed ends with the same bits as one that never was.
"""

import argparse
import contextlib
import csv
import importlib.util
import io
import os
import platform
import re
import shlex
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from filelock import FileLock, Timeout  # comes with PyTorch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

CHECKPOINT_SECONDS = 120  # between two checkpoints inside an epoch
KEPT = ("script", "settings", "environment", "history", "losses", "steps_done")  # of a `Run`, in its checkpoint
Row = dict[str, Any]


def pick_device(name: str) -> torch.device:
    """The device "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N"; raises ValueError, worded for users."""
    name = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N")
    if name != "cpu" and int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise ValueError(f"no device {name} here (CUDA devices found: {torch.cuda.device_count()}): use cpu or auto")
    return torch.device(name)


def epoch_generator(seed: int, epoch: int, index: int = 0) -> torch.Generator:
    """The source of all random choices of one epoch, or of its sample `index`, in a run interrupted or not."""
    return torch.Generator().manual_seed(((seed * 1_000_003 + epoch) * 10_000_019 + index) % 2**63)


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


def write_rows(path: Path, rows: list[Row]) -> None:
    """Rows with the same columns in the same order, as CSV."""
    with write_whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([rows[0], *(row.values() for row in rows)])


def plot_curves(path: Path, history: list[Row], panels: dict[str, dict[str, list[float]]]) -> None:
    """Draws one panel beside the other: {panel title: {label of a curve: a value for each epoch of `history`}}."""
    figure = Figure(figsize=(5 * len(panels), 3.6), layout="constrained")
    for axes, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for label, values in curves.items():
            axes.plot([row["epoch"] for row in history], values, marker="o", markersize=3, label=label)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        if any(map(any, curves.values())):  # a linear axis, the only one for 0, lets epoch 1 squeeze the others
            axes.set_yscale("log")
            ticks = {"major_locator": LogLocator(subs=(1, 2, 5)), "minor_locator": NullLocator()}
            axes.yaxis.set(**ticks, major_formatter="{x:g}")
    with write_whole(path) as part:
        figure.savefig(part, dpi=150, bbox_inches="tight")


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
    if not os.path.exists(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # torch.load does not compare the checksums that torch.save has written
                raise ValueError
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch.load raises almost anything for a damaged file, and its words help nobody
        sys.exit(f"error: {path} is damaged or is no checkpoint: start the run again with another --out")
    if not isinstance(checkpoint, dict) or checkpoint.get("script") != script:
        sys.exit(f"error: {path} is not a checkpoint of {script}: give the --out of one of its runs")
    return checkpoint


def environment(device: torch.device) -> dict[str, str]:
    """What the exact bits of a result depend on besides the settings; kept in the checkpoint."""
    return {
        "machine": f"{platform.system()} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": str(torch.get_num_threads()),
        "processes": os.environ.get("WORLD_SIZE", "1"),
        "torch": str(torch.__version__),
    }


def differences(here: dict[str, Any], run: dict[str, Any], verb: str) -> str:
    """What differs from a run's settings or environment, by name; empty if nothing does."""
    differ = {key: value for key, value in here.items() if value != run.get(key)}
    return ", ".join(f"{key} {value} (the run {verb} {run.get(key)})" for key, value in differ.items())


def command_to_go_on(out: Path) -> str:
    """What was typed, with this interpreter and `--resume`, as the shell of this system takes it."""
    words = [word for word in sys.orig_argv[1:] if word not in ("-u", "--resume")]
    if not any(word == "--out" or word.startswith("--out=") for word in words):
        words += ["--out", str(out)]
    if processes := os.environ.get("LOCAL_WORLD_SIZE"):
        words = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", *words]
    python = Path(sys.executable)
    words = [str(python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python), *words, "--resume"]
    if os.name == "nt":  # PowerShell would part a word at a bare comma
        return " ".join(f'"{word}"' if set(word) & set(" ,;&()") else word for word in words)
    return shlex.join(words)


def add_run_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """The options that `Run` goes by."""
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"folder of the run (default: runs/{name}-DATE-TIME)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, settings included")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--tensorboard", action="store_true", help="write its logs too (pip install tensorboard)")


class Run:
    """A training's folder, settings, history and checkpoint; the loop stays in the script.

        with Run("train_lenet.py", args, DEFAULTS, device) as run:  # ends the command if it cannot or need not begin
            model, optimizer = ...
            run.restore(model=model, optimizer=optimizer)
            for epoch in run.epochs(run.settings["epochs"]):
                ...  # train, evaluate
                run.record({"train_loss": 0.1, "test_accuracy": 0.9})  # a row of history.csv, and a checkpoint
            run.finish({"Loss": {"training": [row["train_loss"] for row in run.history]}})

    In the block, Ctrl-C, a loss that is no number and a file that cannot be written end the command with one line. Of
    several processes that train together, only the one of rank 0 writes: the one that leads.
    """

    def __init__(self, script: str, args: argparse.Namespace, defaults: dict[str, Any], device: torch.device) -> None:
        """`args` has what `add_run_arguments` adds, and the settings that `defaults` names, None where not given."""
        if args.resume and args.out is None:
            sys.exit("error: --resume needs --out DIR, the folder of the run to go on with")
        if args.tensorboard and importlib.util.find_spec("tensorboard") is None:
            sys.exit("error: --tensorboard needs the package tensorboard: pip install tensorboard")
        name = Path(script).stem.removeprefix("train_")
        self.script, self.tensorboard = script, args.tensorboard
        self.out = args.out or Path("runs", f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
        files = [self.out / file for file in ("checkpoint.pth", f"{name}.pth", "model.pth", "history.csv")]
        held = ", ".join(file.name for file in files if os.path.exists(file))
        if held and "checkpoint.pth" not in held:
            sys.exit(f"error: {self.out} holds a run ({held}) without its checkpoint.pth: choose another --out")
        if held and not args.resume:
            sys.exit(f"error: {self.out} already holds a run ({held}): add --resume, or choose another --out")

        checkpoint = self.checkpoint = load_checkpoint(self.out / "checkpoint.pth", script)
        given = {name: getattr(args, name) for name in defaults if getattr(args, name) is not None}
        self.settings, self.environment = {**defaults, **given}, environment(device)
        self.history, self.losses, self.steps_done = [], [], 0  # rows of epochs, of single steps; steps of this epoch
        if checkpoint is None:
            if args.resume:
                print(f"No checkpoint in {self.out} yet: starting afresh")
            return
        if differ := differences(given, checkpoint["settings"], "has"):
            sys.exit(f"error: --resume with other settings than the run's: {differ}")
        if checkpoint["finished"]:
            print(f"{self.out} is finished: all its {len(checkpoint['history'])} epochs are done. Nothing to do.")
            sys.exit()
        print(f"Going on with {self.out} after epoch {len(checkpoint['history'])}")
        if differ := differences(self.environment, checkpoint["environment"], "began on"):
            print(f"warning: the result will not be exact to the bit: {differ}", file=sys.stderr)
        for name in KEPT:  # the environment too, that of the beginning: whoever resumes elsewhere is told each time
            setattr(self, name, checkpoint[name])

    def make_folder(self) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / ".lock").touch()
        except OSError as error:
            sys.exit(f"error: cannot write to --out {self.out}: {error.strerror}")

    def __enter__(self) -> "Run":
        self.saved, self.writer = time.monotonic(), None
        self.leads = not dist.is_initialized() or dist.get_rank() == 0
        if self.leads:
            self.make_folder()
            self.lock = FileLock(self.out / ".lock")  # the system frees it when the process ends, in whatever way
            try:
                self.lock.acquire(blocking=False)
            except Timeout:
                sys.exit(f"error: another training is at work in {self.out}: wait for its end, or choose another --out")
            if self.tensorboard:
                tensorboard = importlib.import_module("torch.utils.tensorboard")
                self.writer = tensorboard.SummaryWriter(self.out, purge_step=len(self.history) + 1)
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if self.leads:
            with contextlib.suppress(OSError):
                Path(self.lock.lock_file).unlink()
            self.lock.release()
        elif isinstance(error, KeyboardInterrupt | FloatingPointError):
            sys.exit(1)  # the process that leads says why
        if isinstance(error, KeyboardInterrupt):
            print(f"\nStopped. To go on: {command_to_go_on(self.out)}", file=sys.stderr)
            sys.exit(130)
        if isinstance(error, FloatingPointError | OSError):
            named = f"{error.filename}: {error.strerror}" if getattr(error, "filename", None) else error
            sys.exit(f"error: {named} (the last good checkpoint, if there is one, is in {self.out})")

    def restore(self, **parts: Any) -> None:
        """Gives each part the state that the checkpoint has for it, if any; the parts are saved with the run."""
        self.parts = parts
        for name, part in parts.items() if self.checkpoint else ():
            part.load_state_dict(self.checkpoint[name])

    def epochs(self, total: int) -> Iterator[int]:
        """The numbers of the epochs that are still to be trained, of 1 to `total`."""
        for epoch in range(len(self.history) + 1, total + 1):
            self.began = time.perf_counter()
            yield epoch

    def step(self, row: Row) -> None:
        """Notes a step of the epoch, a row of losses.csv; saves now and then, so that a run goes on inside an epoch."""
        self.steps_done += 1
        self.losses.append({"step": len(self.losses) + 1, **row})
        if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            self.save()
            self.write_tables()

    def record(self, row: Row) -> Row:
        """Ends an epoch: adds `row` to the history, with its number and seconds, and saves; returns the whole row."""
        row = {"epoch": len(self.history) + 1, **row, "seconds": time.perf_counter() - self.began}
        row = {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()}
        self.history.append(row)
        self.steps_done = 0
        self.save()
        self.write_tables()
        if self.writer is not None:
            for name in list(row)[1:]:
                self.writer.add_scalar(name, row[name], row["epoch"])
            self.writer.flush()
        return row

    def save(self, finished: bool = False) -> None:
        self.saved = time.monotonic()
        if self.leads:
            state = {name: getattr(self, name) for name in KEPT} | {"finished": finished}
            state |= {name: part.state_dict() for name, part in self.parts.items()}
            save_checkpoint(self.out / "checkpoint.pth", state)

    def write_tables(self) -> None:
        for name, rows in {"losses": self.losses, "history": self.history}.items():
            if rows and self.leads:
                write_rows(self.out / f"{name}.csv", rows)

    def finish(self, panels: dict[str, dict[str, list[float]]]) -> None:
        """Draws curves.png (see `plot_curves`), and notes that nothing is left to do."""
        plot_curves(self.out / "curves.png", self.history, panels)
        self.write_tables()  # again: the run may have been killed between the last checkpoint and them
        self.save(finished=True)
