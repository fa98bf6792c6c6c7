"""A page to try the networks on: draw a digit, drop a car, show a cat.

    pip install -r labs/requirements.txt
    python -m labs.app                                 # then open http://127.0.0.1:7860; Ctrl-C ends it
    python -m labs.app --port 8000 --model runs/unet/model.pth --cats-dogs runs/cats_dogs

Everything runs on this machine with the repository's own weights, and no request leaves it. One network works at a
time; whoever waits sees the place in the queue. What is uploaded is gone within the hour, and when the page ends.
"""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

from labs.commands import lab_parser
from training import between, command, pick_device, shipped, told


def free_port(host: str, port: int) -> int:
    """`port` itself, or for 0 one that is free; raises OSError if the page cannot listen at it."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.create_server((host, port), family=family) as server:
            return server.getsockname()[1]
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (")[0]
        raise OSError(f"cannot listen at port {port} of {host}: {reason}") from None


def opened_at(host: str, port: int) -> str:
    """The page's address for a browser on this machine: 0.0.0.0 and :: stand for all addresses, and open none."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


@command
def main() -> None:
    for name in ("SIGTERM", "SIGHUP"):  # the last when the terminal is closed; nohup has it ignored
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:
            signal.signal(getattr(signal, name), signal.default_int_handler)
    parser = lab_parser("app", __doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine only)")
    add("--port", type=between(0, 65535), default=7860, help="0 is any free one (default: 7860)")
    add("-m", "--model", type=Path, default=shipped("model.pth"), help="the U-Net's weights (default: model.pth)")
    add("--cats-dogs", type=Path, metavar="FILE", help="a run's folder or cats_dogs.pth (default: the repository's)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    args = parser.parse_args()
    try:
        from labs.app.page import FILES, build, serve  # Gradio takes seconds, which --help need not pay
    except ImportError as error:  # of Gradio itself, or of something that it wants here
        cure = "pip install -r labs/requirements.txt" if error.name == "gradio" else error
        sys.exit(f"error: the page needs Gradio: {cure}")
    from labs.app.answers import example_cars, example_pets, load_networks  # loaded by the page already

    try:
        with told():
            device = pick_device(args.device)
            port = free_port(args.host, args.port)  # one in use is better known before the page is made
            networks = load_networks(args.model, args.cats_dogs, device)
            page = build(networks, example_cars(FILES.name), example_pets(FILES.name))
            if args.host not in ("127.0.0.1", "localhost", "::1"):
                print(f"warning: everyone who reaches port {port} of this machine can use this page", file=sys.stderr)
            serve(page, args.host, port)
        print(f"Open {opened_at(args.host, port)} (Ctrl-C ends it)", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        FILES.cleanup()
        os._exit(130)  # Gradio's threads would keep it for seconds


if __name__ == "__main__":
    main()
