"""The companion labs; see README.md."""

import os
import signal
import sys

# `python -m labs.NAME` is here before it is there. What that imports takes seconds, and Ctrl-C would be told with all
# its lines, until `lab_parser` gives it back.
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
