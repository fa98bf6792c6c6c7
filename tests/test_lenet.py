"""Both networks are the paper's, layer by layer, wherever the paper can be checked."""

import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lenet
from lenet import LeNet5, LeNet5Original, PartialConv2d, count_parameters, original_loss, squash

NETWORKS = [LeNet5, LeNet5Original]

# Table I as the paper prints it: a row for each map of S2, a column for each map of C3.
TABLE_I = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
""".split()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def input_of(layer: nn.Module, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What `layer` is given when `model` sees `images`."""
    seen = []
    handle = layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    model(images)
    handle.remove()
    return seen[0].detach()


@pytest.mark.parametrize("network", NETWORKS)
def test_a_batch_of_images_becomes_ten_scores_each(network, images):
    assert network()(images).shape == (5, 10)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_scores_of_an_image_do_not_depend_on_its_batch(network, images):
    model = network()
    torch.testing.assert_close(model(images)[2:3], model(images[2:3]))


def test_the_number_of_classes_can_be_chosen(images):
    assert LeNet5(num_classes=7)(images).shape == (5, 7)


@pytest.mark.parametrize(
    ("network", "counts"),
    [
        (LeNet5, {"C1": 156, "S2": 0, "C3": 2416, "S4": 0, "C5": 48120, "F6": 10164, "output": 850}),
        (LeNet5Original, {"C1": 156, "S2": 12, "C3": 1516, "S4": 32, "C5": 48120, "F6": 10164}),
    ],
)
def test_the_stages_are_the_papers_with_its_parameter_counts(network, counts):
    assert {name: count_parameters(layer) for name, layer in network().named_children()} == counts


def test_the_modern_networks_layers_can_be_changed_as_the_readme_invites_to(images):
    changed = Path(lenet.__file__).read_text(encoding="utf-8")
    for line in ("nn.Conv2d(1, 6, kernel_size=5, padding=2)", "nn.Conv2d(6, 16, kernel_size=5)"):
        assert changed.count(line) == 1
        changed = changed.replace(line, line.replace("6,", "8,", 1))
    module: dict[str, object] = {"__name__": "changed"}
    exec(compile(changed, "lenet.py", "exec"), module)
    assert module["LeNet5"]()(images).shape == (5, 10)


def test_a_changed_network_of_1998_is_refused(monkeypatch):
    monkeypatch.setattr(lenet, "TABLE_I", ["012345"] * 16)
    with pytest.raises(AssertionError):
        LeNet5Original()


@pytest.mark.parametrize(("network", "count"), [(LeNet5, 61_706), (LeNet5Original, 60_000)])
def test_the_whole_network_has_the_papers_parameter_count(network, count):
    assert count_parameters(network()) == count


@pytest.mark.parametrize(
    ("stage", "shape"),
    [("C1", (1, 32, 32)), ("S2", (6, 28, 28)), ("C3", (6, 14, 14)), ("S4", (16, 10, 10)), ("C5", (16, 5, 5))],
)
def test_each_stage_of_the_original_is_given_maps_of_the_papers_size(stage, shape, images):
    model = LeNet5Original()
    assert input_of(getattr(model, stage), model, images).shape == (5, *shape)


def test_the_modern_network_centres_mnists_mean_pixel_at_zero(images):
    model = LeNet5()
    seen = input_of(model.C1, model, images)
    torch.testing.assert_close(seen * 0.3081 + 0.1307, images)


def test_pooling_before_relu_is_relu_before_pooling(images):
    model = LeNet5()
    x = F.max_pool2d(F.relu(model.C1((images - 0.1307) / 0.3081)), 2)
    x = F.max_pool2d(F.relu(model.C3(x)), 2).flatten(1)
    torch.testing.assert_close(model(images), model.output(F.relu(model.F6(F.relu(model.C5(x))))))


def test_the_original_pads_with_background_at_minus_a_tenth_and_ink_is_1_175():
    model = LeNet5Original()
    seen = input_of(model.C1, model, torch.ones(1, 1, 28, 28))
    torch.testing.assert_close(seen, F.pad(torch.full((1, 1, 28, 28), 1.175), (2, 2, 2, 2), value=-0.1))


def test_squashing_keeps_plus_and_minus_one():
    torch.testing.assert_close(
        squash(torch.tensor([-1.0, 0.0, 1.0])), torch.tensor([-1.0, 0.0, 1.0]), atol=1e-4, rtol=0
    )


def test_subsampling_adds_four_inputs_and_scales_and_shifts_the_sum():
    layer = LeNet5Original().S2
    with torch.no_grad():
        layer.coefficient[3], layer.bias[3] = 0.5, -1.0
    maps = torch.zeros(1, 6, 4, 4)
    maps[0, 3, :2, 2:] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    torch.testing.assert_close(layer(maps)[0, 3].detach(), torch.tensor([[-1.0, 4.0], [-1.0, -1.0]]))


@pytest.mark.parametrize("c3_map", range(16))
def test_each_map_of_c3_depends_on_exactly_the_maps_of_s2_in_table_i(c3_map):
    maps = torch.randn(1, 6, 14, 14, requires_grad=True)
    PartialConv2d()(maps)[0, c3_map].sum().backward()
    depends = maps.grad[0].flatten(1).abs().sum(dim=1) > 0
    assert depends.tolist() == [row[c3_map] == "X" for row in TABLE_I]


def test_the_codes_are_ten_distinct_bitmaps_of_84_plus_and_minus_ones():
    codes = LeNet5Original().codes
    assert codes.shape == (10, 84)
    assert codes.abs().eq(1).all()
    assert len(codes.unique(dim=0)) == 10


def test_the_codes_are_cut_from_the_drawing_one_digit_a_column():
    one = LeNet5Original().codes[1].view(12, 7)
    drawn = ["".join("#" if dot == 1 else "." for dot in row) for row in one.tolist()]
    assert drawn == [*["...##..", "..###..", ".####.."], *["...##.."] * 6, ".######", *["......."] * 2]


def test_the_codes_are_not_trained():
    assert "codes" not in dict(LeNet5Original().named_parameters())


def test_the_scores_of_the_original_are_negated_squared_distances_from_the_codes(images):
    model = LeNet5Original()
    f6 = squash(model.F6(input_of(model.F6, model, images)))
    torch.testing.assert_close(model(images), -(torch.cdist(f6, model.codes) ** 2), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("digit", range(10))
def test_an_f6_that_equals_a_code_makes_that_digit_win(digit, images):
    model = LeNet5Original()
    with torch.no_grad():
        model.F6.weight.zero_()
        model.F6.bias.copy_(model.codes[digit])  # squashing keeps +1 and -1
    assert model(images).argmax(dim=1).tolist() == [digit] * 5


def test_the_originals_first_weights_fill_the_papers_range_and_stay_in_it():
    torch.manual_seed(0)
    models = [LeNet5Original() for _ in range(20)]
    fan_ins = {"C1.weight": 25, "C1.bias": 25, "S2.coefficient": 4, "S2.bias": 4, "S4.coefficient": 4, "S4.bias": 4}
    fan_ins |= {"C5.weight": 400, "C5.bias": 400, "F6.weight": 120, "F6.bias": 120}
    for name, fan_in in fan_ins.items():
        largest = max(model.get_parameter(name).abs().max().item() for model in models)
        assert 0.9 * 2.4 / fan_in < largest <= 2.4 / fan_in * (1 + 1e-6), name


@pytest.mark.parametrize(("c3_map", "seen"), [(0, 3), (5, 3), (6, 4), (14, 4), (15, 6)])
def test_the_first_weights_of_a_c3_map_have_the_fan_in_of_the_maps_that_it_sees(c3_map, seen):
    torch.manual_seed(0)
    before = sum(row[:c3_map].count("X") for row in TABLE_I)
    layers = [PartialConv2d() for _ in range(200)]
    limit = 2.4 / (25 * seen)
    for first in (
        [layer.kernels[before : before + seen] for layer in layers],
        [layer.bias[c3_map] for layer in layers],
    ):
        largest = max(weights.abs().max().item() for weights in first)
        assert 0.97 * limit < largest <= limit * (1 + 1e-6)


def test_the_original_loss_is_equation_9():
    distances, labels, j = [[0.5, 1.5, 3.0], [2.0, 0.25, 1.0]], [0, 2], 0.7
    expected = [
        y[label] + math.log(math.exp(-j) + sum(math.exp(-other) for other in y))
        for y, label in zip(distances, labels, strict=True)
    ]
    loss = original_loss(-torch.tensor(distances), torch.tensor(labels), j)
    assert loss.item() == pytest.approx(sum(expected) / 2)


def test_the_original_loss_stays_finite_where_the_plain_formula_would_not():
    assert original_loss(torch.full((2, 10), -1000.0), torch.tensor([3, 4]), j=0.1).item() == pytest.approx(999.9)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_state_dict_makes_another_network_give_the_same_scores(network, images, tmp_path):
    model, other = network(), network()
    torch.save(model.state_dict(), tmp_path / "lenet.pth")
    other.load_state_dict(torch.load(tmp_path / "lenet.pth", weights_only=True))
    assert torch.equal(other(images), model(images))


@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_learns(network, images):
    model = network()
    original_loss(model(images), torch.tensor([0, 1, 2, 3, 4])).backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


def test_the_script_prints_both_networks_with_their_counts(capsys):
    lenet.main()
    printed = capsys.readouterr().out
    assert [line.split()[-2] for line in printed.splitlines() if "in all" in line] == ["61,706", "60,000"]
    assert re.search("C3 +1,516 parameters", printed)
