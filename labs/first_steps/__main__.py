"""First steps in PyTorch: a companion lab (the strips tutorial, sections 1.2 to 1.4 and 2).

    python -m labs.first_steps                prints what README.md tells, and trains for a minute
    python -m labs.first_steps --quick        trains for a few seconds

ends, give or take a few digits of another machine's rounding, with

    after one epoch: loss 0.3076, 90.55% of the test digits
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from labs.commands import lab_parser
from report.tables import RESULTS, machine, write_json
from train_lenet import evaluate, load_mnist, train_epoch
from training import command, pick_device, told

Transform = Callable[[np.ndarray], Any]


def load_bytes(root: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """MNIST as NumPy has it: images `[N, 28, 28]`, 0 to 255, and labels `[N]`."""
    images, labels = load_mnist(root, train)
    return (images[:, 0] * 255).round().byte().numpy(), labels.numpy()


def tensors(device: torch.device) -> None:
    """Section 1.2: a tensor, its relation to NumPy, and where it is."""
    array = np.array([[1, 2], [3, 4]])
    tensor = torch.from_numpy(array)
    copy = torch.tensor(array)
    print(f"shape {list(tensor.shape)}, dtype {tensor.dtype}, device {tensor.device}")
    array[0, 0] = 9
    print(f"after array[0, 0] = 9: from_numpy has {tensor[0, 0]}, torch.tensor has {copy[0, 0]}")
    tensor.numpy()[1, 1] = 7
    print(f"after tensor.numpy()[1, 1] = 7: the array has {array[1, 1]}")
    print(f"NumPy's 0.5 is {torch.tensor(np.array(0.5)).dtype}, Python's 0.5 is {torch.tensor(0.5).dtype}")
    moved = tensor.to(device, torch.float32)
    print(f".to({str(device)!r}, torch.float32): {moved.dtype} on {moved.device}; the first is still {tensor.dtype}")


def scaling(to_tensor: Transform) -> None:
    """Section 1.4.1: what torchvision's ToTensor scales, and what it does not."""
    picture = np.array([[0, 51, 255]], dtype=np.uint8)
    for kind in (np.uint8, np.int64, np.float32):
        made = to_tensor(picture.astype(kind))
        print(f"ToTensor of {picture[0]} as {kind.__name__}: {made.flatten().numpy()}, {made.dtype}")
    print(f"a picture of {(28, 20, 3)}, colours last, becomes {list(to_tensor(np.zeros((28, 20, 3))).shape)}")


class Digits(Dataset):
    """Section 1.3.2: images `[N, 28, 28]` (bytes) and labels `[N]`, one by one, each transformed as it is asked for."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        transform: Transform | None = None,
        target_transform: Callable[[int], Any] | None = None,
    ) -> None:
        self.images, self.labels = images, labels
        self.transform, self.target_transform = transform, target_transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = self.images[index], int(self.labels[index])
        if self.transform is not None:
            image = self.transform(image)
        return image, label if self.target_transform is None else self.target_transform(label)


class OneOfEach(Sampler[int]):
    """Section 1.3.3: goes through a data set so that every ten numbers in a row are of ten different digits."""

    def __init__(self, labels: np.ndarray, generator: torch.Generator) -> None:
        self.by_digit = [torch.from_numpy(np.flatnonzero(labels == digit)) for digit in range(10)]
        self.rounds = min(map(len, self.by_digit))  # of a digit that is more frequent, some are left out
        self.generator = generator

    def __len__(self) -> int:
        return 10 * self.rounds

    def __iter__(self) -> Iterator[int]:
        shuffled = [own[torch.randperm(len(own), generator=self.generator)] for own in self.by_digit]
        yield from torch.stack([own[: self.rounds] for own in shuffled], dim=1).flatten().tolist()


def one_hot(label: int) -> Tensor:
    """Section 1.4.2's Lambda."""
    return torch.zeros(10).scatter_(dim=0, index=torch.tensor(label), value=1)


def loading(images: np.ndarray, labels: np.ndarray, to_tensor: Transform) -> None:
    """Sections 1.3.3 and 1.4.2: batches, in which order, and what their numbers mean."""
    plain, ready = Digits(images, labels), Digits(images, labels, to_tensor, one_hot)
    print(f"sample 0 of {len(plain):,}: {plain[0][0].dtype} {plain[0][0].shape}, label {plain[0][1]}")
    image, target = ready[0]
    print(f"transformed: {image.dtype} {list(image.shape)}, from {image.min():.0f} to {image.max():.0f}")
    print(f"its label by target_transform: {target.int().tolist()}")

    generator = torch.Generator().manual_seed(1)
    loader = DataLoader(Digits(images, labels, to_tensor), batch_size=10, shuffle=True, generator=generator)
    for batch_idx, (_, targets) in enumerate(loader):
        print(f"batch_idx {batch_idx}: labels {targets.tolist()}; sample {batch_idx} is a {labels[batch_idx]}")
        if batch_idx == 1:
            break
    loader = DataLoader(Digits(images, labels, to_tensor), batch_size=10, sampler=OneOfEach(labels, generator))
    batch, targets = next(iter(loader))
    print(f"OneOfEach: labels {targets.tolist()} of images {list(batch.shape)}")


def strips_network() -> nn.Sequential:
    """Section 2's network, its layers in a row, so that one can look between them; class 10 is a blank place."""
    return nn.Sequential(
        nn.Conv2d(1, 10, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(10, 20, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20 * 10 * 10, 500),
        nn.ReLU(),
        nn.Linear(500, 11),
        nn.LogSoftmax(dim=1),  # F.log_softmax without dim, as in the tutorial, makes PyTorch guess and warn
    )


def look_inside(network: nn.Sequential, image: Tensor, label: int) -> None:
    """Every layer's shape, and what an untrained network reads in `image` `[1, 28, 28]`."""
    x = image[None]
    print(f"{'a batch of one image':20} {list(x.shape)}")
    for layer in network:
        x = layer(x)
        print(f"{type(layer).__name__:20} {list(x.shape)}")
    print(f"untrained, it reads a {x.argmax().item()} in a {label}, with probability {x.exp().max():.2f}")


def losses(logits: Tensor, labels: Tensor) -> None:
    """Section 2.2.1: the cross-entropy is the negative logarithm of the right answer's probability; no MSE is in it."""
    logarithms = F.log_softmax(logits, dim=1)
    print(f"cross_entropy(logits)           {F.cross_entropy(logits, labels):.4f}")
    print(f"nll_loss(log_softmax(logits))   {F.nll_loss(logarithms, labels):.4f}")
    print(f"by hand                         {-logarithms[torch.arange(len(labels)), labels].mean():.4f}")
    targets = F.one_hot(labels, logits.shape[1]).float()
    print(f"mse_loss(softmax, one-hot)      {F.mse_loss(logarithms.exp(), targets):.4f}")


def train(network: nn.Sequential, train_set: Dataset, test_set: Dataset) -> dict[str, float]:
    """Section 2.2.3, with the tutorial's numbers: one epoch from a DataLoader, and what has been learned."""
    loader = DataLoader(train_set, batch_size=60, shuffle=True, generator=torch.Generator().manual_seed(0))
    test_loader = DataLoader(test_set, batch_size=1000)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
    _, untrained = evaluate(network, test_loader, F.nll_loss)
    print(f"untrained: {untrained:.2%} of the test digits", flush=True)
    train_epoch(network, loader, F.nll_loss, optimizer)  # zero_grad, backward and step stand there
    loss, accuracy = evaluate(network, test_loader, F.nll_loss)
    print(f"after one epoch: loss {loss:.4f}, {accuracy:.2%} of the test digits")
    return {"steps": len(loader), "untrained": untrained, "loss": loss, "accuracy": accuracy}


@command
def main() -> None:
    parser = lab_parser("first_steps", __doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of MNIST/raw")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    parser.add_argument(
        "--quick", action="store_true", help="learns 3,000 digits instead of 60,000, and writes nothing"
    )
    args = parser.parse_args()

    from torchvision.transforms import ToTensor  # takes as long to import as PyTorch itself

    to_tensor = ToTensor()
    with told():
        device = pick_device(args.device)
        (images, labels), (test_images, test_labels) = (load_bytes(args.data, train) for train in (True, False))

    print("Tensors (1.2)")
    tensors(device)
    print("\nToTensor (1.4.1)")
    scaling(to_tensor)
    print("\nDataset, DataLoader and Sampler (1.3, 1.4.2)")
    loading(images, labels, to_tensor)
    print("\nThe network (2)")
    torch.manual_seed(1)
    network = strips_network()
    look_inside(network, *Digits(images, labels, to_tensor)[0])
    print("\nThe loss (2.2.1)")
    losses(torch.randn(4, 11), torch.tensor([5, 0, 4, 1]))
    print("\nA first training (2.2.3)")
    count = 3000 if args.quick else len(images)
    train_set = Digits(images[:count], labels[:count], to_tensor)
    result = train(network.to(device), train_set, Digits(test_images, test_labels, to_tensor))
    if not args.quick:
        with told():
            write_json(RESULTS / "labs" / "first_steps.json", {**result, "machine": machine()})


if __name__ == "__main__":
    main()
