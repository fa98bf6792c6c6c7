"""How much of a picture a unit of a network sees: by the formula, and by the gradient (the CIFAR tutorial).

output_rows(network, "C3", 28)                 the rows that C3's maps have where the picture has 28, by the formula
receptive_field(network, "C3", (4, 4))         the rows from which C3 makes its row 4, by kernels and strides
field_by_gradient(network, "C3", picture, 4)   the rows that move it, found by asking the network
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from lenet import PartialConv2d, Subsampling

Rows = tuple[int, int]  # the first and the last


class Layers(fx.Tracer):
    """Follows a network's forward function down to the modules without parts, and no farther."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return not list(module.children())


def reach(layer: nn.Module) -> tuple[int, int, int]:
    """Kernel (with its holes), stride and padding of a layer, in rows; (1, 1, 0) if each unit sees one place."""
    if isinstance(layer, PartialConv2d):
        return 5, 1, 0
    if isinstance(layer, Subsampling):
        return 2, 2, 0
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.MaxPool2d | nn.AvgPool2d):
        return 1, 1, 0
    numbers = [getattr(layer, name, 1) for name in ("kernel_size", "stride", "padding", "dilation")]
    kernel, stride, padding, dilation = (number if isinstance(number, int) else number[0] for number in numbers)
    return dilation * (kernel - 1) + 1, stride, padding


def seen_by(layer: nn.Module, rows: Rows) -> Rows:
    """The rows of its input from which a layer makes these rows of its output.

    A convolution or pooling makes row i of rows S i - P to S i - P + K - 1 (Dumoulin and Visin, "A guide to convolution
    arithmetic", 2016). Transposed, it adds row i to those, so that a row is made of all i whose reach it is in.
    """
    (first, last), (kernel, stride, padding) = rows, reach(layer)
    if isinstance(layer, nn.ConvTranspose2d):
        return -((kernel - 1 - first - padding) // stride), (last + padding) // stride
    return stride * first - padding, stride * last - padding + kernel - 1


def made_by(layer: nn.Module, rows: int) -> int:
    """How many rows a layer makes of so many: one for each place where its kernel fits between the paddings."""
    kernel, stride, padding = reach(layer)
    if isinstance(layer, nn.ConvTranspose2d):
        return stride * (rows - 1) - 2 * padding + kernel
    return (rows + 2 * padding - kernel) // stride + 1


def output_rows(network: nn.Module, layer: str, rows: int) -> int:
    """How many rows the maps of `layer` have, where the picture has so many."""
    made = {}
    for node in Layers().trace(network).nodes:
        own = [made[source] for source in node.all_input_nodes if source in made]
        made[node] = own[0] if own else rows  # where maps are joined, the first ones have the size of the result
        if node.op == "call_module":
            made[node] = made_by(network.get_submodule(node.target), made[node])
            if node.target == layer:
                found = made[node]
        elif node.target is F.pad:
            made[node] += 2 * node.args[1][2]
    return found


def receptive_field(network: nn.Module, layer: str, rows: Rows) -> Rows:
    """The rows of the picture from which `layer` makes these rows of its maps; beyond the edges too."""
    seen, nodes = {}, list(Layers().trace(network).nodes)
    for node in reversed(nodes):  # from the layer back to the picture; where two ways meet, the wider one counts
        if node.op == "call_module" and node.target == layer and not seen:  # its last call, if it has several
            seen[node] = rows
        if node not in seen:
            continue
        wanted = seen[node]
        if node.op == "call_module":
            wanted = seen_by(network.get_submodule(node.target), wanted)
        elif node.target is F.pad:
            border = node.args[1][2]
            wanted = wanted[0] - border, wanted[1] - border
        for source in node.all_input_nodes:
            known = seen.get(source, wanted)
            seen[source] = min(known[0], wanted[0]), max(known[1], wanted[1])
    return seen[nodes[0]]


def field_by_gradient(network: nn.Module, layer: str, picture: Tensor, row: int) -> Rows:
    """The rows of `picture` `[1, C, H, W]` that change the unit in `row` of `layer`, in the middle of its maps.

    In a copy of the network whose weights are all alike, and which takes the mean where the network takes the largest:
    else a way through it that happens to be closed would not count.
    """
    network = copy.deepcopy(network).eval()
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.MaxPool2d):
            mean = nn.AvgPool2d(module.kernel_size, module.stride, module.padding)
            network.set_submodule(name, mean)
        for parameter in module.parameters(recurse=False):
            nn.init.constant_(parameter, 1 / max(1, parameter[0].numel()))
    units = []
    network.get_submodule(layer).register_forward_hook(lambda _, __, output: units.append(output.clone()))
    picture = torch.ones_like(picture, requires_grad=True)
    network(picture)
    units[-1][0, :, row, units[-1].shape[3] // 2].sum().backward()
    rows = picture.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    return rows.min().item(), rows.max().item()
