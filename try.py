"""Does a checkpoint fit the coursework's U-Net?

    python try.py --model model.pth

prints, when it does:

    Loading model model.pth
    Using device cpu
    Model loaded
"""

import argparse
import sys

from training import pick_device
from unet import load_unet


def main() -> None:
    parser = argparse.ArgumentParser(description="Load a checkpoint into the U-Net, strictly.")
    parser.add_argument("-m", "--model", default="model.pth", help="the checkpoint (default: model.pth)")
    args = parser.parse_args()
    sys.stdout.reconfigure(errors="replace")  # where it cannot spell the checkpoint's name

    device = pick_device("auto")
    print(f"Loading model {args.model}")
    print(f"Using device {device}", flush=True)
    try:
        load_unet(args.model, device)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print("Model loaded")


if __name__ == "__main__":
    main()
