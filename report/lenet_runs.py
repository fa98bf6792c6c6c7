"""The runs of `train_lenet.py` that the report speaks of, each resumed where it was stopped.

    python -m report.lenet_runs recipe     how the defaults were chosen, on digits kept back from the training set
    python -m report.lenet_runs results    five seeds of both networks with the defaults, on the test set

Writes the history of every run to report/results/lenet/NAME.csv, with the command in report/results/lenet/commands.csv.
"""

import argparse
import csv
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "report" / "results" / "lenet"
RUNS = {
    "recipe": {
        "recipe-modern-64-0.003": "--validate --batch-size 64 --lr 0.003",
        "recipe-modern-128-0.003": "--validate --batch-size 128 --lr 0.003",
        "recipe-modern-128-0.006": "--validate --batch-size 128 --lr 0.006",
        "recipe-modern-128-0.012": "--validate --batch-size 128 --lr 0.012",
        "recipe-modern-256-0.012": "--validate --batch-size 256 --lr 0.012",
        "recipe-modern-256-0.024": "--validate --batch-size 256 --lr 0.024",
        "recipe-modern-512-0.012": "--validate --batch-size 512 --lr 0.012",
        "recipe-modern-512-0.024": "--validate --batch-size 512 --lr 0.024",
        "recipe-modern-256-0.012-short": "--validate --epochs 3 --batch-size 256 --lr 0.012",
        "recipe-modern-plain": "--validate --batch-size 128 --lr 0.006 --no-augment",
        "recipe-original-0.006": "--validate --model original --epochs 5 --batch-size 256 --lr 0.006",
        "recipe-original-0.012": "--validate --model original --epochs 5 --batch-size 256 --lr 0.012",
        "recipe-original-0.024": "--validate --model original --epochs 5 --batch-size 256 --lr 0.024",
    },
    "results": {
        **{f"modern-seed{seed}": f"--epochs 10 --seed {seed}" for seed in range(5)},
        "modern-short": "--epochs 3",
        **{f"original-seed{seed}": f"--model original --epochs 20 --seed {seed}" for seed in range(5)},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=list(RUNS))
    which = parser.parse_args().which
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / "commands.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "command"])
        for runs in RUNS.values():
            writer.writerows([name, f"python train_lenet.py {options}"] for name, options in runs.items())
    for name, options in RUNS[which].items():
        out = Path("runs", "report", name)
        print(f"python train_lenet.py {options}", flush=True)
        command = [sys.executable, "train_lenet.py", *options.split(), "--out", str(out), "--resume"]
        subprocess.run(command, cwd=ROOT, check=True)
        shutil.copy(ROOT / out / "history.csv", RESULTS / f"{name}.csv")


if __name__ == "__main__":
    main()
