"""Does a checkpoint fit the coursework's U-Net?

    python try.py --model model.pth

prints, when it does:

    Loading model model.pth
    Using device cpu
    Model loaded
"""

import argparse

from training import command, pick_device, shipped, told
from unet import load_unet


@command
def main() -> None:
    parser = argparse.ArgumentParser(description="Load a checkpoint into the U-Net, strictly.")
    model = shipped("model.pth")
    parser.add_argument("-m", "--model", default=model, help="the checkpoint (default: model.pth)")
    args = parser.parse_args()

    device = pick_device("auto")
    print(f"Loading model {args.model}")
    print(f"Using device {device}", flush=True)
    with told():
        load_unet(args.model, device)
    print("Model loaded")


if __name__ == "__main__":
    main()
