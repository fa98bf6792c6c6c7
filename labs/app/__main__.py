"""A page to try the networks on: draw a digit, drop a car, show a cat.

    pip install -r labs/requirements.txt
    python -m labs.app                                 # then open http://127.0.0.1:7860; Ctrl-C ends it
    python -m labs.app --port 8000 --model runs/unet/model.pth

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


@command
def main() -> None:
    parser = lab_parser("app", __doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine only)")
    add("--port", type=between(0, 65535), default=7860, help="(default: 7860)")
    add("-m", "--model", type=Path, default=shipped("model.pth"), help="the U-Net's weights (default: model.pth)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    args = parser.parse_args()
    try:
        from labs.app.page import FILES, build, serve  # Gradio takes seconds, which --help need not pay
    except ImportError as error:  # of Gradio itself, or of something that it wants here, as for a proxy
        cure = "pip install -r labs/requirements.txt" if error.name == "gradio" else error
        sys.exit(f"error: the page needs Gradio: {cure}")
    from labs.app.answers import example_cars, load_networks  # loaded by the page already

    try:
        with told():
            device = pick_device(args.device)
            socket.create_server((args.host, args.port)).close()  # one in use is better known before the page is made
            page = build(load_networks(args.model, device), example_cars(FILES.name))
            if args.host not in ("127.0.0.1", "localhost", "::1"):
                print(f"warning: everyone who reaches {args.host} can use this page", file=sys.stderr)
            serve(page, args.host, args.port)
        print(f"Open http://{args.host}:{args.port} (Ctrl-C ends it)", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        threading.Event().wait()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        FILES.cleanup()
        os._exit(130)  # Gradio's threads would keep it for seconds


if __name__ == "__main__":
    main()
