"""What more than one file of tests needs."""

import multiprocessing
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

# One thread, here and in the processes that tests start: the networks and pictures of tests are so small that a second
# one takes longer to wake than to work. PyTorch reads this when it is imported, so it stands before all tests' imports.
os.environ["OMP_NUM_THREADS"] = "1"

TESTS = Path(__file__).parent
LINUX = sys.platform == "linux"


class Ended(NamedTuple):
    """How a process ended, and what it printed."""

    status: int
    out: str
    error: str


def work_in(folder: Path, environment: dict[str, str], work: Callable[[], None]) -> None:
    """A process of its own: `work` in `folder`; what it prints goes to `out.txt` and `error.txt` there."""
    import torch
    import tqdm

    os.chdir(folder)
    os.environ.update(environment)
    for name, stream in (("out.txt", sys.stdout), ("error.txt", sys.stderr)):
        with open(name, "w") as file:
            os.dup2(file.fileno(), stream.fileno())
    tqdm.tqdm.set_lock(threading.RLock())  # tqdm's own would outlive a process that is killed
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what runs in its background ignore Ctrl-C
    try:
        work()
    finally:
        if torch.distributed.is_initialized():  # as the script does at its exit; a forked process has none
            torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def start():
    """start(folder, work, **environment) starts a process that calls `work` in `folder`.

    On Linux it is forked from a server that has imported PyTorch once for all of them. `work` must be found by its
    name: a function of a test's file, with functools.partial for its arguments.
    """
    context = multiprocessing.get_context("forkserver" if LINUX else "spawn")
    if LINUX:
        late = ["torch._dynamo", "matplotlib.figure", "matplotlib.backends.backend_agg"]  # imported late
        context.set_forkserver_preload(["train_lenet", "train_unet", "pytest", *late])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS.parent), str(TESTS)]))

        def start(folder: Path, work: Callable[[], None], **environment: str) -> multiprocessing.Process:
            (folder / "out.txt").unlink(missing_ok=True)
            process = context.Process(target=work_in, args=(folder, environment, work))
            process.start()
            return process

        yield start


def ended(process: multiprocessing.Process, folder: Path) -> Ended:
    """Waits for the end of a process that `start` has started in `folder`."""
    process.join()
    return Ended(process.exitcode, (folder / "out.txt").read_text(), (folder / "error.txt").read_text())


@pytest.fixture
def start_two(start, tmp_path):
    """start_two(first, second) does each work in a process, the two connected as torchrun connects them: how they end.

    They are on one machine, or, as far as they can tell, on two.
    """

    def start_two(*works: Callable[[], None], machines: int = 1) -> list[Ended]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
        processes, folders = [], [tmp_path / f"rank {rank}" for rank in range(2)]
        for rank, (work, folder) in enumerate(zip(works, folders, strict=True)):
            place = {"GROUP_RANK": rank, "LOCAL_RANK": 0} if machines == 2 else {"GROUP_RANK": 0, "LOCAL_RANK": rank}
            own = {"RANK": rank, "LOCAL_WORLD_SIZE": 2 // machines, **place}
            folder.mkdir()
            processes.append(start(folder, work, **common, **{name: str(value) for name, value in own.items()}))
        return [ended(process, folder) for process, folder in zip(processes, folders, strict=True)]

    return start_two


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium. What needs it is skipped where it or Playwright is missing (labs/requirements-test.txt)."""
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install -r labs/requirements-test.txt")
    with api.sync_playwright() as playwright:
        chromium = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(chromium).exists():
            pytest.skip("no Chromium: apt install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


@pytest.fixture
def expect(browser):
    """Playwright's assertions, which give a page ten seconds to come true."""
    from playwright.sync_api import expect

    expect.set_options(timeout=10_000)
    return expect
