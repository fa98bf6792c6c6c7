"""The report and what measures for it; see README.md."""

import os
import signal
import sys
from types import FrameType


def stop(number: int, frame: FrameType | None) -> None:
    """Ctrl-C: no traceback while modules load, which takes seconds; Python's way once `main` is there, their last."""
    if hasattr(sys.modules["__main__"], "main"):
        signal.default_int_handler(number, frame)
    os._exit(130)


# `python -m report.NAME` is here before it is there.
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, stop)
