"""What every script here shares around its work: how a command ends, the device, whole files, curves, and `Run`.

The loop stands in the scripts. How a run survives: everything it needs to go on is in `checkpoint.pth`, which is
replaced in one step, and each epoch draws its random numbers from a generator of its own, seeded by (seed, epoch): a
run that is killed and resumed ends with the same bits as one that never was.
"""

import argparse
import atexit
import contextlib
import csv
import ctypes
import errno
import functools
import importlib.util
import io
import os
import platform
import re
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from filelock import FileLock, Timeout

ROOT = Path(__file__).resolve().parent  # of the repository
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
CHECKPOINT_SECONDS = 120  # between two checkpoints inside an epoch
KEPT = ("script", "settings", "environment", "history", "losses", "steps_done")  # of a `Run`, in its checkpoint
Row = dict[str, Any]


class Finished(Exception):
    """Nothing is left to do; its message, meant for the user, says of what."""


def command(main: Callable[[], None]) -> Callable[[], None]:
    """A script's `main` as every script runs it: whatever text it prints, and however it is stopped, no traceback."""

    @functools.wraps(main)
    def run() -> None:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:  # in pythonw, or after >&-
                setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
            elif hasattr(stream, "reconfigure"):  # Jupyter's, Spyder's and IDLE's have none
                stream.reconfigure(errors="backslashreplace")  # what it cannot spell, such as a Chinese name in cp1252
        try:
            try:
                with told((OSError,)):
                    main()
            except Finished as done:
                print(done)
            finally:
                sys.stdout.flush()
        except KeyboardInterrupt:
            sys.exit(130)
        except (RuntimeError, MemoryError) as error:
            if lack := lacks_memory(error, "choose smaller pictures, batches or networks"):
                sys.exit(f"error: {lack}")
            raise
        except OSError as error:  # of standard output: its reader has left, as head -1 does, or its disk is full
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141 if isinstance(error, BrokenPipeError) else f"error: {in_words(error)}")

    return run


def shipped(name: str) -> Path:
    """The path `name` where the working folder has it, else in the repository."""
    return Path(name) if os.path.exists(name) else ROOT / name


def in_words(error: BaseException) -> str:
    """What `error` says, without the number and the quotation marks of the system's errors."""
    words = getattr(error, "strerror", None)
    named = words is not None and error.filename is not None
    return f"{os.fsdecode(error.filename)}: {words}" if named else words or str(error)


@contextlib.contextmanager
def told(kinds: tuple[type[Exception], ...] = (ValueError, OSError)) -> Iterator[None]:
    """Ends the command with one line, `error: …`, for what a user can mend: a ValueError or OSError in the block."""
    try:
        yield
    except BrokenPipeError:
        raise
    except kinds as error:
        sys.exit(f"error: {in_words(error)}")


def lacks_memory(error: Exception, cure: str) -> str | None:
    """Which memory was too small for PyTorch, which has no class for that, and what helps; None if none was."""
    text = str(error)
    if re.search(r"shared memory|/torch_\d|signal: Bus", text) and "Too many open files" not in text:
        return "too little shared memory (/dev/shm): add --workers 0, or --shm-size=2g to docker run"
    words = r"allocate .*memory|not enough memory|bad_alloc|signal: Killed"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or re.search(words, text):
        return f"not enough memory: {cure}"
    return None


def between(low: float, high: float) -> Callable[[str], float]:
    """A type for argparse: numbers, of the type of `low`, from `low` to `high`."""

    def number(text: str) -> float:
        value = type(low)(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be from {low} to {high}, not {text}")
        return value

    number.__name__ = type(low).__name__  # argparse says "invalid int value" of other text
    return number


def pick_device(name: str) -> torch.device:
    """The device "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N"; raises ValueError, worded for users."""
    name = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N")
    if name != "cpu" and int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise ValueError(f"no device {name} here (CUDA devices found: {torch.cuda.device_count()}): use cpu or auto")
    return torch.device(name)


def join_processes(name: str) -> torch.device:
    """`pick_device`, and if torchrun started several processes: a GPU for each, and the connection between them."""
    device = pick_device(name)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        if device.type == "cuda":
            device = pick_device(f"cuda:{os.environ['LOCAL_RANK']}")
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)  # a process that ends without it may abort
    return device


def is_main() -> bool:
    """Whether this process is the one of rank 0: of several that train together, it alone writes and speaks."""
    return not dist.is_initialized() or dist.get_rank() == 0


def gathered(value: Any) -> list[Any]:
    """The `value` of each of the processes that train together, in the order of their ranks."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def together(work: Callable[[], Any]) -> Any:
    """`work()`, done by each process that trains; where it fails in one of them, all end, and one says why."""
    result = error = None
    try:
        result = work()
    except (ValueError, OSError, Finished, KeyboardInterrupt) as failure:
        error = failure
    first = next((failure for failure in gathered(error) if failure is not None), None)
    if first is None:
        return result
    if is_main():
        raise first
    sys.exit(0 if isinstance(first, Finished) else 1)


def agree(value: Any, otherwise: str) -> None:
    """Raises ValueError(`otherwise`) if the processes that train together do not all have the same `value`."""
    first, *others = gathered(value)
    if any(other != first for other in others):
        if is_main():
            raise ValueError(otherwise)
        sys.exit(1)


def epoch_generator(seed: int, epoch: int, index: int = 0) -> torch.Generator:
    """The source of all random choices of one epoch, or of its sample `index`, in a run interrupted or not."""
    return torch.Generator().manual_seed(((seed * 1_000_003 + epoch) * 10_000_019 + index) % 2**63)


@contextlib.contextmanager
def write_whole(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to; it takes the place of `path` only if the block ends well.

    So a full disk, a crash, Ctrl-C or a power cut never leaves half a file, nor harms the one that was there. Raises
    OSError.
    """
    path = Path(path)
    # Not the name itself with something added, for that may be as long as the system allows.
    part = path.with_name(f".{zlib.crc32(os.fsencode(path.name)):08x}.part{path.suffix}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())  # else the new name may be on the disk before the content is
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error.__cause__, OSError):  # else worded by an inner one
            failure = type(error)(f"cannot write {path}: {error.strerror or error}")
            failure.errno = error.errno
            raise failure from error
        raise


def write_rows(path: Path, rows: list[Row]) -> None:
    """Rows with the same columns in the same order, as CSV."""
    # A name that is no UTF-8 stays readable: \udcXX is what Python makes of such bytes.
    with write_whole(path) as part, part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows([rows[0], *(row.values() for row in rows)])


def plot_curves(path: Path, history: list[Row], panels: dict[str, dict[str, list[float]]]) -> None:
    """Draws one panel beside the other: {panel title: {label of a curve: a value for each epoch of `history`}}."""
    from matplotlib.figure import Figure  # takes a second, which every command would pay
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

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


def loss_and_error(history: list[Row], curves: dict[str, str], shown: str) -> dict[str, dict[str, list[float]]]:
    """`plot_curves`' panels where classes are told: `curves` is {label: how its columns begin}, `shown` what it is."""
    losses = {label: [row[f"{name}_loss"] for row in history] for label, name in curves.items()}
    errors = {label: [100 - 100 * row[f"{name}_accuracy"] for row in history] for label, name in curves.items()}
    return {"Loss": losses, f"Error, % of the {shown}": errors}


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Writes `checkpoint` whole or not at all; raises OSError. (`torch.save` to a full disk raises RuntimeError.)"""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    with write_whole(path) as part:
        part.write_bytes(buffer.getvalue())


def save_weights(path: Path, model: torch.nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Writes `model`'s weights as numbers of `dtype` on the CPU, so that any machine can read them."""
    save_checkpoint(path, {name: value.to("cpu", dtype, copy=True) for name, value in model.state_dict().items()})


def load_checkpoint(path: Path, script: str) -> dict[str, Any] | None:
    """The checkpoint of `script` in `path`, None where there is none yet; raises ValueError, worded for users."""
    if not os.path.exists(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # torch.load does not compare the checksums that torch.save has written
                raise ValueError
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch.load raises almost anything for a damaged file, and its words help nobody
        raise ValueError(f"{path} is damaged or is no checkpoint: start the run again with another --out") from None
    if not isinstance(checkpoint, dict) or checkpoint.get("script") != script:
        raise ValueError(f"{path} is not a checkpoint of {script}: give the --out of one of its runs")
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


def add_run_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """The options that `Run` goes by."""
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"folder of the run (default: runs/{name}-DATE-TIME)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, settings included")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument("--tensorboard", action="store_true", help="write what `tensorboard --logdir runs` shows live")


def keep_memory() -> None:
    """Lets a step's maps use the memory of the last step's, which Linux's glibc would give back to the system.

    Every page that is given back must be asked for, and filled with zeros, again (mallopt(3)).
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # musl has no such choice
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


class Run:
    """A training's folder, settings, history and checkpoint; the loop stays in the script.

        with Run("train_lenet.py", args, DEFAULTS, device) as run:
            model, optimizer = ...
            run.restore(model=model, optimizer=optimizer)
            for epoch in run.epochs(run.settings["epochs"]):
                ...  # train, evaluate
                run.record({"train_loss": 0.1, "test_accuracy": 0.9})  # a row of history.csv, and a checkpoint
            run.finish({"Loss": {"training": [row["train_loss"] for row in run.history]}})

    In the block, Ctrl-C, a loss that is no number and a file that cannot be written end the command with one line. Of
    several processes that train together, each has a `Run`, and only the main one's writes.
    """

    def __init__(self, script: str, args: argparse.Namespace, defaults: dict[str, Any], device: torch.device) -> None:
        """`args` has what `add_run_arguments` adds, and the settings that `defaults` names, None where not given.

        Writes nothing. Raises ValueError, its message meant for the user, if the run cannot begin or go on, and
        Finished if nothing of it is left to do.
        """
        if args.resume and args.out is None:
            raise ValueError("--resume needs --out DIR, the folder of the run to go on with")
        if args.tensorboard and importlib.util.find_spec("tensorboard") is None:
            raise ValueError("--tensorboard needs the package tensorboard: pip install tensorboard")
        name = Path(script).stem.removeprefix("train_")
        self.script, self.tensorboard, self.resume = script, args.tensorboard, args.resume
        self.out = args.out or Path("runs", f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
        files = [self.out / file for file in ("checkpoint.pth", f"{name}.pth", "model.pth", "history.csv")]
        held = ", ".join(file.name for file in files if os.path.exists(file))
        if held and "checkpoint.pth" not in held:
            raise ValueError(f"{self.out} holds a run ({held}) without its checkpoint.pth: choose another --out")
        if held and not args.resume:
            raise ValueError(f"{self.out} already holds a run ({held}): add --resume, or choose another --out")

        given = {name: getattr(args, name) for name in defaults if getattr(args, name) is not None}
        self.settings, self.here = {**defaults, **given}, environment(device)
        self.environment = self.here
        self.history, self.losses, self.steps_done = [], [], 0  # rows of epochs, of single steps; steps of this epoch
        self.checkpoint = load_checkpoint(self.out / "checkpoint.pth", script)
        self.is_new = self.checkpoint is None
        if self.is_new:
            return
        if differ := differences(given, self.checkpoint["settings"], "has"):
            raise ValueError(f"--resume with other settings than the run's: {differ}")
        for name in KEPT:  # the environment too, that of the beginning: whoever resumes elsewhere is told each time
            setattr(self, name, self.checkpoint[name])
        self.settings = {**defaults, **self.settings}  # an older version's run lacks what was added since
        if self.checkpoint["finished"]:
            raise Finished(f"{self.out} is finished: all its {len(self.history)} epochs are done. Nothing to do.")

    def __enter__(self) -> "Run":
        self.saved, self.writer = time.monotonic(), None
        keep_memory()
        if is_main():
            try:
                self.out.mkdir(parents=True, exist_ok=True)
                (self.out / ".lock").touch()
            except OSError as error:
                sys.exit(f"error: cannot write to --out {self.out}: {error.strerror}")
            self.lock = FileLock(self.out / ".lock")  # the system frees it when the process ends, in whatever way
            try:
                self.lock.acquire(blocking=False)
            except Timeout:
                sys.exit(f"error: another training is at work in {self.out}: wait for its end, or choose another --out")
            if not self.is_new:
                print(f"Going on with {self.out} after epoch {len(self.history)}")
            elif self.resume:
                print(f"No checkpoint in {self.out} yet: starting afresh")
            if differ := differences(self.here, self.environment, "began on"):
                print(f"warning: the result will not be exact to the bit: {differ}", file=sys.stderr)
            if self.tensorboard:
                board = importlib.import_module("torch.utils.tensorboard")
                self.writer = board.SummaryWriter(self.out, purge_step=1 + (len(self.losses) or len(self.history)))
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if is_main():
            with contextlib.suppress(OSError):
                Path(self.lock.lock_file).unlink()
            self.lock.release()
        elif isinstance(error, KeyboardInterrupt | FloatingPointError):
            sys.exit(1)  # the main process says why
        if isinstance(error, KeyboardInterrupt | BrokenPipeError):
            out = f'"{self.out}"' if " " in str(self.out) else self.out
            print(f"\nStopped. To go on: the same command with --out {out} --resume", file=sys.stderr)
            sys.exit(130 if isinstance(error, KeyboardInterrupt) else 141)
        if isinstance(error, FloatingPointError | OSError):
            sys.exit(f"error: {in_words(error)} (the last good checkpoint, if there is one, is in {self.out})")

    def restore(self, **parts: Any) -> None:
        """Gives each part the state that the checkpoint has for it, if any; the parts are saved with the run."""
        self.parts = parts
        for name, part in parts.items() if self.checkpoint else ():
            part.load_state_dict(self.checkpoint[name])
        self.checkpoint = None  # it may be as large as three networks

    def epochs(self, total: int) -> Iterator[int]:
        """The numbers of the epochs that are still to be trained, of 1 to `total`."""
        for epoch in range(len(self.history) + 1, total + 1):
            self.began = time.perf_counter()
            self.seed_step()
            yield epoch

    def seed_step(self) -> None:
        """Seeds PyTorch's own generator, which a Dropout draws from, for the next step: a stop does not change it."""
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        index = -1 - self.steps_done * ranks - rank  # below 0: the samples' generators have the numbers from 0 on
        torch.manual_seed(epoch_generator(self.settings.get("seed", 0), len(self.history) + 1, index).initial_seed())

    def step(self, row: Row) -> None:
        """Notes a step of the epoch, a row of losses.csv; saves now and then, so that a run goes on inside an epoch."""
        self.steps_done += 1
        self.losses.append({"step": len(self.losses) + 1, **row})
        if self.writer is not None:
            self.writer.add_scalar("loss", row["loss"], len(self.losses))
        self.seed_step()
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
        if self.writer is not None:
            for name in row.keys() - {"epoch", "size", "batch_size", "seconds"}:  # at the step, as purge_step counts
                self.writer.add_scalar(name, row[name], len(self.losses) or len(self.history))
        self.write_tables()
        return row

    def save(self, finished: bool = False) -> None:
        self.saved = time.monotonic()
        if is_main():
            state = {name: getattr(self, name) for name in KEPT} | {"finished": finished}
            state |= {name: part.state_dict() for name, part in self.parts.items()}
            save_checkpoint(self.out / "checkpoint.pth", state)

    def write_tables(self) -> None:
        if self.writer is not None:
            self.writer.flush()  # a checkpoint's steps are not trained again, and would be missing
        for name, rows in {"losses": self.losses, "history": self.history}.items():
            if rows and is_main():
                try:
                    write_rows(self.out / f"{name}.csv", rows)
                except OSError as error:  # Excel holds what it shows; the rows are in the checkpoint, too
                    if error.errno not in (errno.EACCES, errno.EPERM):
                        raise
                    print(f"warning: {error}: close what holds it open; going on without it", file=sys.stderr)

    def finish(self, panels: dict[str, dict[str, list[float]]]) -> None:
        """Draws curves.png (see `plot_curves`), and notes that nothing is left to do."""
        plot_curves(self.out / "curves.png", self.history, panels)
        self.write_tables()  # again: the run may have been killed between the last checkpoint and them
        self.save(finished=True)
