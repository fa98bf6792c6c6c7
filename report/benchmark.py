"""The speeds in the report: what is compared is always measured in turn, in one process, several rounds of it.

    python -m report.benchmark lenet    images/s of train_lenet.py's loop, of a bare loop, and of the usual DataLoader
    python -m report.benchmark unet     the U-Net on one photograph: FLOP/s, time from file to overlay, memory
    python -m report.benchmark training    train_unet.py's loop, from files on, beside one over ready tensors
    python -m report.benchmark start    CPU time of try.py and infer_unet.py over that of `import torch`
    python -m report.benchmark lenet --keep epyc    to benchmark_epyc.json, beside those of the first machine

Prints every figure and writes all to a file benchmark.json in report/results/lenet or report/results/unet. Runs on the
CPU. The machine should have nothing else to do: other work does not slow all the variants alike.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Subset
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from carvana import CarDataset, Pair, find_pairs, shape_for
from infer_unet import overlay, predict_mask, segment
from lenet import LeNet5
from pictures import open_photograph
from report.draw_car import draw_folder
from report.harness import CPU
from report.tables import RESULTS, machine, write_json
from train_lenet import DEFAULTS, WEIGHT_DECAY, Batches, load_mnist, random_affine, train_epoch
from train_unet import WEIGHT_DECAY as UNET_WEIGHT_DECAY
from train_unet import epoch_batches, has_bfloat16, train_steps
from training import ROOT, Row, command, epoch_generator, keep_memory, told
from unet import UNet, load_unet

FILES = {
    "lenet": "lenet/benchmark.json",
    "unet": "unet/benchmark.json",
    "training": "unet/training_benchmark.json",
    "start": "unet/start_benchmark.json",
}
BATCH_SIZE = DEFAULTS["batch_size"]
LENET_STEPS = 60  # a measurement
LENET_ROUNDS = 7
UNET_ROUNDS = 5
TRAINING_STAGES = ((96, 8), (160, 8), (572, 2))  # short side in pixels, pictures a step
TRAINING_PICTURES = {96: 64, 160: 32, 572: 8}  # in an epoch
TRAINING_WORKERS = (0, 2)
TRAINING_ROUNDS = 3
START_ROUNDS = 5
START_AIMS = {"try": 1.35, "infer_unet": 1.9}  # times the CPU time of a bare import of torch, at most


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each of `measures` gives in each round; all take turns, and a first round warms up."""
    for name in tqdm(measures, "warming up", leave=False, disable=None):
        measures[name]()
    values: dict[str, list[float]] = {name: [] for name in measures}
    for name in tqdm(list(measures) * rounds, "measuring", leave=False, disable=None):
        values[name].append(measures[name]())
    return values


def spread(values: list[float]) -> dict[str, float | list[float] | None]:
    """The median of one figure's rounds, its extremes, and the rounds themselves; None for what was left out."""
    if not values:
        return {"median": None, "min": None, "max": None, "rounds": []}
    return {"median": median(values), "min": min(values), "max": max(values), "rounds": values}


def ratios(values: dict[str, list[float]], pairs: dict[str, tuple[str, str]]) -> Row:
    """`pairs` is {name of a ratio: (over, under)}; the two of a round lie side by side, so each round gives a ratio."""
    return {
        name: spread([a / b for a, b in zip(values.get(over, []), values.get(under, []), strict=False)])
        for name, (over, under) in pairs.items()
    }


def bare_loop(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Trains on (images `[B, 1, 28, 28]`, labels `[B]`) and does nothing else."""
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def new_network(memory_format: torch.memory_format) -> tuple[LeNet5, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = LeNet5().to(memory_format=memory_format)
    return model, torch.optim.AdamW(model.parameters(), lr=0.001, weight_decay=WEIGHT_DECAY, fused=True)


def benchmark_lenet() -> Row:
    """Images/s of each way to train on MNIST, and the ratios that the report speaks of.

    All train the same layers on batches of the same size with the same optimizer. The DataLoader's network lacks
    LeNet5's own scaling of the pixels, because its transform has done that; its workers are started beforehand.
    """
    from torchvision.datasets import MNIST  # slow to import, and only this one needs it
    from torchvision.transforms import Compose, Normalize, ToTensor

    images, labels = load_mnist(ROOT / "data", train=True)
    digits = LENET_STEPS * BATCH_SIZE

    def ready_batches(memory_format: torch.memory_format) -> Callable[[], object]:
        model, optimizer = new_network(memory_format)
        batches = list(zip(images[:digits].split(BATCH_SIZE), labels[:digits].split(BATCH_SIZE), strict=True))
        return lambda: bare_loop(model, optimizer, batches)

    def our_loop(augment: Callable[[Tensor, torch.Generator], Tensor] | None) -> Callable[[], object]:
        model, optimizer = new_network(torch.channels_last)
        scheduler = OneCycleLR(optimizer, max_lr=DEFAULTS["lr"], total_steps=100_000)
        batches = Batches(images, labels, BATCH_SIZE, torch.Generator().manual_seed(0), augment)
        return lambda: train_epoch(model, islice(batches, LENET_STEPS), F.cross_entropy, optimizer, scheduler)

    def usual_loader(workers: int) -> Callable[[], object]:
        model, optimizer = new_network(torch.contiguous_format)
        layers = nn.Sequential(
            *(model.C1, model.S2, nn.ReLU(), model.C3, model.S4, nn.ReLU(), nn.Flatten()),
            *(model.C5, nn.ReLU(), model.F6, nn.ReLU(), model.output),
        )
        transform = Compose([ToTensor(), Normalize((0.1307,), (0.3081,))])
        mnist = MNIST(ROOT / "data", train=True, download=True, transform=transform)  # or unpacks what lies there
        dataset = Subset(mnist, range(digits))
        loader = DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
        return lambda: bare_loop(layers, optimizer, loader)

    variants = {
        "bare": ready_batches(torch.channels_last),
        "bare_default_format": ready_batches(torch.contiguous_format),
        "loop": our_loop(None),
        "loop_augmented": our_loop(random_affine),
        "loader_0_workers": usual_loader(0),
        "loader_2_workers": usual_loader(2),
    }
    measures = {name: lambda work=work: digits / seconds(work) for name, work in variants.items()}
    speeds = in_turn(measures, LENET_ROUNDS)
    loader = max("loader_0_workers", "loader_2_workers", key=lambda name: median(speeds[name]))
    pairs = {
        "loop_over_bare": ("loop", "bare"),
        "loop_augmented_over_bare": ("loop_augmented", "bare"),
        "loop_over_loader": ("loop", loader),
        "channels_last_over_default_format": ("bare", "bare_default_format"),
    }
    fixed = 1e6 / median(speeds["loader_0_workers"]) - 1e6 / median(speeds["bare_default_format"])
    return {
        "batch_size": BATCH_SIZE,
        "loader_microseconds_per_digit": fixed,
        "images_per_second": {name: spread(values) for name, values in speeds.items()},
        "better_loader": loader,
        "ratios": ratios(speeds, pairs),
    }


def run_quietly(arguments: list[str | Path]) -> None:
    """Runs Python with `arguments`; raises ValueError if that ends in an error."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2]
        raise ValueError(f"python {' '.join(map(str, arguments))} failed: {said}")


def peak_mib() -> int:
    """The most memory that any finished child of this process has held."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)


def benchmark_unet(data: Path | None) -> Row:
    """Speed and memory of the full-width U-Net (64 base channels) and of the one that is shipped (16), as ratios.

    `of_matmul` is the FLOP/s of a forward pass, 576x864 pixels, over those of a float32 product of two 2048x2048
    matrices, measured just before and after it. `plain` is the default memory format; a `whole` goes from photograph to
    written overlay. The photograph is the first in `data`, or else car.jpg, whose drawn grain takes longer to compress.
    The small network is `model.pth`. The full one has random weights, but finds no car: drawing none costs it less.
    Each `step` is one of `small_whole`; `step_save_default` writes at Pillow's own compression level instead.
    """
    photo = find_pairs(data, check=False)[0].photo if data else ROOT / "car.jpg"
    images = torch.rand(1, 3, 576, 864)
    matrix = torch.rand(2048, 2048)
    with TemporaryDirectory() as name:
        out, full = Path(name) / "out.png", Path(name) / "full.pth"
        plain = UNet(3, 1)
        nn.init.zeros_(plain.final_conv.weight)
        nn.init.constant_(plain.final_conv.bias, -1)
        torch.save(plain.state_dict(), full)
        networks, gflop, memory = {}, {}, {}
        for label, weights in {"small": ROOT / "model.pth", "full": full}.items():  # so ordered: the peak only grows
            if sys.platform != "win32":
                run_quietly([ROOT / "infer_unet.py", photo, out, "--model", weights, "--device", "cpu"])
                memory[label] = peak_mib()
            networks[label] = load_unet(weights, CPU)
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                networks[label](images)
            gflop[label] = counter.get_total_flops() / 1e9

        def forward(network: UNet, memory_format: torch.memory_format, bfloat16: bool = False) -> Callable[[], object]:
            x = images.contiguous(memory_format=memory_format)

            def work() -> None:
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                    network(x)

            return work

        def whole(network: UNet) -> Callable[[], object]:
            return lambda: segment(network, photo, [out, None, None], 572, 0.5)

        image = open_photograph(photo)
        mask = predict_mask(networks["small"], image)
        drawn = overlay(image, mask)
        variants = {
            "full_plain": forward(plain, torch.contiguous_format),
            "step_open": lambda: open_photograph(photo),
            "step_predict": lambda: predict_mask(networks["small"], image),
            "step_overlay": lambda: overlay(image, mask),
            "step_save": lambda: drawn.save(out, compress_level=1),
            "step_save_default": lambda: drawn.save(out),
        }
        for label, network in networks.items():
            variants[label] = forward(network, torch.channels_last)
            variants[f"{label}_bfloat16"] = forward(network, torch.channels_last, bfloat16=True)
            variants[f"{label}_whole"] = whole(network)
        left_out = [] if has_bfloat16(CPU) else [name for name in variants if name.endswith("bfloat16")]
        if left_out:
            print(f"This CPU has no instructions for bfloat16: {', '.join(left_out)} left out", file=sys.stderr)
        forwards = [name for name in variants if name.partition("_")[0] in networks and not name.endswith("_whole")]
        of_matmul: dict[str, list[float]] = {name: [] for name in forwards}

        def measure(name: str) -> float:
            before = min(seconds(lambda: matrix @ matrix) for _ in range(3))
            taken = seconds(variants[name])
            after = min(seconds(lambda: matrix @ matrix) for _ in range(3))
            if name in of_matmul:
                matmul = 2 * 2 * 2048**3 / (before + after)
                of_matmul[name].append(gflop[name.partition("_")[0]] * 1e9 / taken / matmul)
            return taken

        measures = {name: partial(measure, name) for name in variants if name not in left_out}
        times = in_turn(measures, UNET_ROUNDS)
    pairs = {
        "plain_over_full": ("full_plain", "full"),
        "full_whole_over_small_whole": ("full_whole", "small_whole"),
        "small_over_small_whole": ("small", "small_whole"),
        **{f"{name}_over_small_whole": (name, "small_whole") for name in variants if name.startswith("step_")},
    }
    return {
        "photograph": "Carvana's" if data else "drawn",
        "gflop": gflop,
        "peak_mib": memory,
        "seconds": {name: spread(times.get(name, [])) for name in variants},
        "of_matmul": {name: spread(values[1:]) for name, values in of_matmul.items()},  # the first warmed up
        "ratios": ratios(times, pairs),
    }


def training_ratios(found: list[Pair], size: int, batch_size: int) -> Row:
    """The ratios at one size: files read with so many workers, over ready tensors."""
    count = TRAINING_PICTURES[size]
    pairs = (found * -(-count // len(found)))[:count]
    dataset = CarDataset(pairs, *shape_for(pairs, size), seed=0, quiet=True)
    torch.manual_seed(0)
    model = UNet(3, 1, 16).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.001, weight_decay=UNET_WEIGHT_DECAY)
    scheduler = OneCycleLR(optimizer, 0.001, total_steps=100_000)
    batches = epoch_batches(count, batch_size, epoch_generator(0, 2), rank=0, ranks=1)
    ready = list(DataLoader(dataset, batch_sampler=batches))

    def speed(workers: int | None) -> float:
        source = ready if workers is None else DataLoader(dataset, batch_sampler=batches, num_workers=workers)
        steps = train_steps(model, source, optimizer, scheduler)
        return count / seconds(lambda: list(steps))

    variants = {"ready": None, **{f"{workers}_workers": workers for workers in TRAINING_WORKERS}}
    speeds = in_turn({name: partial(speed, workers) for name, workers in variants.items()}, TRAINING_ROUNDS)
    return ratios(speeds, {f"{name}_over_ready": (name, "ready") for name in variants if name != "ready"})


def benchmark_training(data: Path | None) -> Row:
    """Images/s of train_unet.py's whole loop, from files to weights, and their ratio to those over ready tensors.

    At each size the same network (`base_channels` 16) takes the same steps on one epoch after the first, so that what
    fits is held in memory already, as in a training. `data` is a folder for `find_pairs`; without it cars are drawn.
    The pictures are repeated or cut to `TRAINING_PICTURES`. A whole epoch includes starting its workers, and with few
    pictures that weighs more than in a training.
    """
    results: Row = {"photographs": "real" if data else "drawn"}
    keep_memory()  # as every `Run`
    with TemporaryDirectory() as name:
        if data is None:
            draw_folder(Path(name), range(12), 858, 572)
        found = find_pairs(data or Path(name), check=False)
        return results | {str(size): training_ratios(found, size, batch_size) for size, batch_size in TRAINING_STAGES}


def cpu_seconds(arguments: list[str | Path]) -> float:
    """CPU time, user and system, of Python with `arguments`; raises ValueError where the system does not tell it."""
    before = os.times()
    run_quietly(arguments)
    after = os.times()
    taken = after.children_user + after.children_system - before.children_user - before.children_system
    if not taken:
        raise ValueError("this system does not tell the CPU time of a process that has ended")
    return taken


def benchmark_start() -> Row:
    """CPU time of `try.py` and of `infer_unet.py car.jpg out.png` over that of `import torch`, and the aims."""
    with TemporaryDirectory() as folder:
        commands = {
            "import_torch": ["-c", "import torch"],
            "try": [ROOT / "try.py"],
            "infer_unet": [ROOT / "infer_unet.py", ROOT / "car.jpg", Path(folder) / "out.png"],
        }
        measures = {name: partial(cpu_seconds, arguments) for name, arguments in commands.items()}
        taken = in_turn(measures, START_ROUNDS)
    pairs = {f"{name}_over_import_torch": (name, "import_torch") for name in START_AIMS}
    return {
        "cpu_seconds": {name: spread(values) for name, values in taken.items()},
        "ratios": ratios(taken, pairs),
        "aims": START_AIMS,
    }


def show(results: Row) -> None:
    """Prints every figure: its median, and its lowest and highest round."""
    for section, figures in results.items():
        print(section if isinstance(figures, dict) else f"{section}: {figures}")
        for name, figure in figures.items() if isinstance(figures, dict) else ():
            if isinstance(figure, dict):
                form = "left out" if figure["median"] is None else "{median:.4g}   ({min:.4g} to {max:.4g})"
                figure = form.format_map(figure)
            print(f"    {name:28s} {figure}")


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=list(FILES))
    parser.add_argument("--data", type=Path, metavar="DIR", help="photographs for unet and training (default: drawn)")
    parser.add_argument("--keep", metavar="NAME", help="of another machine: write to a file of this name")
    args = parser.parse_args()
    if args.which == "unet":
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as infer_unet.py does, before the first tensor is made
    measure = {
        "lenet": benchmark_lenet,
        "unet": lambda: benchmark_unet(args.data),
        "training": lambda: benchmark_training(args.data),
        "start": benchmark_start,
    }
    path = RESULTS / FILES[args.which]
    with told():
        if args.keep:
            path = path.with_stem(f"{path.stem}_{args.keep}")
        results = {"machine": machine(), **measure[args.which]()}
        show(results)
        write_json(path, results)


if __name__ == "__main__":
    main()
