"""The U-Net is the coursework's, and `load_unet` opens every checkpoint of it, and nothing else."""

import contextlib
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from unet import CropAndConcat, UNet, add_norms, fold_norms, load_unet

CPU = torch.device("cpu")


def coursework_shapes(base: int = 64) -> dict[str, list[int]]:
    """Names and shapes as the coursework's handout gives them, written down without looking at our class."""
    blocks = {
        "down_conv1": (3, base),
        "down_conv2": (base, 2 * base),
        "down_conv3": (2 * base, 4 * base),
        "down_conv4": (4 * base, 8 * base),
        "middle_conv": (8 * base, 16 * base),
        "up_conv1": (16 * base, 8 * base),
        "up_conv2": (8 * base, 4 * base),
        "up_conv3": (4 * base, 2 * base),
        "up_conv4": (2 * base, base),
    }
    shapes = {}
    for name, (before, after) in blocks.items():
        shapes[f"{name}.0.weight"] = [after, before, 3, 3]
        shapes[f"{name}.0.bias"] = [after]
        shapes[f"{name}.2.weight"] = [after, after, 3, 3]
        shapes[f"{name}.2.bias"] = [after]
        if name.startswith("up_conv"):
            upsample = name.replace("conv", "sample")
            shapes[f"{upsample}.weight"] = [before, after, 2, 2]
            shapes[f"{upsample}.bias"] = [after]
    shapes["final_conv.weight"] = [1, base, 1, 1]
    shapes["final_conv.bias"] = [1]
    return shapes


def coursework_checkpoint(base: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in coursework_shapes(base).items()}


def message_of_loading(path: Path) -> str:
    with pytest.raises((ValueError, OSError)) as caught:
        load_unet(path, CPU)
    message = str(caught.value)
    assert path.name in message and "\n" not in message
    return message


# The network


def test_the_full_width_network_has_the_courseworks_46_tensors_and_31031745_parameters():
    with torch.device("meta"):
        model = UNet(3, 1)
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == coursework_shapes()
    assert len(model.state_dict()) == 46
    assert sum(parameter.numel() for parameter in model.parameters()) == 31_031_745


def test_the_courseworks_checkpoint_loads_strictly_into_the_plain_class():
    checkpoint = {name: torch.zeros(shape) for name, shape in coursework_shapes().items()}
    assert str(UNet(3, 1).load_state_dict(checkpoint, strict=True)) == "<All keys matched successfully>"


def test_the_expansive_map_comes_first_and_the_contracting_map_is_cropped_at_its_centre():
    x = torch.full((2, 3, 4, 4), 7.0)
    contracting_x = torch.zeros(2, 5, 6, 8)
    contracting_x[:, :, 1:5, 2:6] = 1
    joined = CropAndConcat()(x, contracting_x)
    assert joined.shape == (2, 8, 4, 4)
    assert (joined[:, :3] == 7).all() and (joined[:, 3:] == 1).all()


@pytest.mark.parametrize(
    ("height", "width", "out_height", "out_width"),
    [(16, 16, 16, 16), (17, 31, 16, 16), (47, 33, 32, 32), (572, 61, 560, 48), (64, 99, 64, 96)],
)
def test_the_output_is_the_input_rounded_down_to_multiples_of_16(height, width, out_height, out_width):
    with torch.inference_mode():
        assert UNet(3, 1, 2)(torch.rand(2, 3, height, width)).shape == (2, 1, out_height, out_width)


def test_the_scores_are_raw_not_probabilities():
    model = UNet(3, 1, 2)
    nn.init.constant_(model.final_conv.bias, -100.0)
    with torch.inference_mode():
        assert (model(torch.zeros(1, 3, 16, 16)) < -50).all()


def test_channels_are_those_asked_for():
    with torch.inference_mode():
        assert UNet(5, 4, 2)(torch.rand(1, 5, 16, 16)).shape == (1, 4, 16, 16)


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    model = UNet(3, 1, 4)
    model(torch.rand(2, 3, 33, 48)).square().mean().backward()
    assert [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_a_fresh_network_keeps_the_size_of_the_signal_through_its_layers():
    torch.manual_seed(0)
    with torch.inference_mode():
        scores = UNet(3, 1, 16)(torch.rand(1, 3, 64, 64))
    assert 0.05 < scores.std() < 20


def test_the_forward_pass_is_the_one_the_paper_draws():
    """The same figure once more, written with functions only, on random weights."""
    weights = coursework_checkpoint()
    model = UNet(3, 1, 2)
    model.load_state_dict(weights)

    def convolve_twice(name, x):
        for index in "02":
            x = nn.functional.conv2d(x, weights[f"{name}.{index}.weight"], weights[f"{name}.{index}.bias"], padding=1)
            x = x.clamp(min=0)
        return x

    images = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    x, skips = images, []
    for level in range(1, 5):
        x = convolve_twice(f"down_conv{level}", x)
        skips.append(x)
        x = nn.functional.max_pool2d(x, 2)
    x = convolve_twice("middle_conv", x)
    for level in range(1, 5):
        name = f"up_sample{level}"
        x = nn.functional.conv_transpose2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride=2)
        x = convolve_twice(f"up_conv{level}", torch.cat([x, skips.pop()], dim=1))
    expected = nn.functional.conv2d(x, weights["final_conv.weight"], weights["final_conv.bias"])
    with torch.inference_mode():
        torch.testing.assert_close(model(images), expected)


# Checkpoints that are the coursework's network, in all their wrappings


@pytest.mark.parametrize("base", [1, 2, 3, 16])
def test_the_width_is_read_from_the_checkpoint(tmp_path, base):
    torch.save(coursework_checkpoint(base), tmp_path / "model.pth")
    model = load_unet(tmp_path / "model.pth", CPU)
    for name, value in coursework_checkpoint(base).items():
        assert torch.equal(model.state_dict()[name], value), name


def test_a_full_width_checkpoint_loads(tmp_path):
    with torch.device("meta"):
        shapes = UNet(3, 1).state_dict()
    torch.save(
        {name: torch.zeros(value.shape, dtype=torch.float16) for name, value in shapes.items()}, tmp_path / "m.pth"
    )
    assert sum(parameter.numel() for parameter in load_unet(tmp_path / "m.pth", CPU).parameters()) == 31_031_745


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model", "net"])
def test_every_usual_wrapping_is_taken_off(tmp_path, wrapper, prefix):
    weights = coursework_checkpoint()
    saved = {prefix + name: value for name, value in weights.items()}
    if wrapper:
        saved = {"epoch": 3, wrapper: saved, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
    torch.save(saved, tmp_path / "model.pth")
    loaded = load_unet(tmp_path / "model.pth", CPU).state_dict()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_point_type_becomes_float32(tmp_path, dtype):
    weights = {name: value.to(dtype) for name, value in coursework_checkpoint().items()}
    torch.save(weights, tmp_path / "model.pth")
    loaded = load_unet(tmp_path / "model.pth", CPU).state_dict()
    assert all(
        value.dtype == torch.float32 and torch.equal(value, weights[name].float()) for name, value in loaded.items()
    )


def test_a_checkpoint_in_the_old_format_of_before_pytorch_1_6_loads(tmp_path):
    torch.save(coursework_checkpoint(), tmp_path / "model.pth", _use_new_zipfile_serialization=False)
    load_unet(tmp_path / "model.pth", CPU)


def test_the_loaded_network_is_ready_for_inference_and_can_still_be_trained(tmp_path):
    torch.save(coursework_checkpoint(), tmp_path / "model.pth")
    model = load_unet(str(tmp_path / "model.pth"), CPU)
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    scores = model(torch.rand(1, 3, 16, 16))
    scores.sum().backward()


# Everything else


class TouchAFile:
    """What a hostile checkpoint holds: unpickling it runs a command of its choice."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["torch.save", "old format", "pickle 2", "pickle 5", "inside state_dict"])
def test_a_hostile_pickle_does_not_run(tmp_path, how):
    path, trace = tmp_path / "model.pth", tmp_path / "was here"
    hostile = TouchAFile(trace)
    if how.startswith("pickle"):
        path.write_bytes(pickle.dumps(hostile, protocol=int(how[-1])))
    elif how == "inside state_dict":
        torch.save({"state_dict": {**coursework_checkpoint(), "extra": hostile}}, path)
    else:
        torch.save(hostile, path, _use_new_zipfile_serialization=how == "torch.save")
    message_of_loading(path)
    assert not trace.exists()
    # The same file does harm where it is trusted: the test would notice.
    if how.startswith("pickle"):
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert trace.exists()


def test_a_pickled_whole_model_is_named_and_refused(tmp_path):
    torch.save(UNet(3, 1, 2), tmp_path / "model.pth")
    message = message_of_loading(tmp_path / "model.pth")
    assert "whole model" in message and "unet.UNet" in message and "state_dict" in message and "trusts" in message


def test_a_missing_file_is_named(tmp_path):
    assert "no checkpoint" in message_of_loading(tmp_path / "model.pth")


def test_a_folder_is_called_a_folder(tmp_path):
    assert "folder" in message_of_loading(tmp_path)


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "model.pth").touch()
    assert "empty" in message_of_loading(tmp_path / "model.pth")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("new_format", [True, False])
def test_a_truncated_checkpoint_is_called_truncated(tmp_path, share, new_format):
    path = tmp_path / "model.pth"
    torch.save(coursework_checkpoint(4), path, _use_new_zipfile_serialization=new_format)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "truncated" in message_of_loading(path)


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_single_flipped_bit_is_noticed(tmp_path, place):
    path = tmp_path / "model.pth"
    torch.save(coursework_checkpoint(16), path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    assert "is damaged" in message_of_loading(path)


def test_no_flipped_bit_of_the_table_of_contents_gives_other_weights_or_a_traceback(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(coursework_checkpoint(1), path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    weights = load_unet(path, torch.device("cpu")).state_dict()
    for place in range(start, len(whole), 41):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        with contextlib.suppress(ValueError):
            loaded = load_unet(path, torch.device("cpu")).state_dict()
            assert all(torch.equal(loaded[name], value) for name, value in weights.items()), place


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html>Not found</html>",
        "模型\n".encode(),
        b"\x00" * 1000,
        b"\x89PNG\r\n\x1a\n",
        pickle.dumps({"a": 1}),
    ],
    ids=["html", "text", "zeros", "png", "plain pickle"],
)
def test_a_file_of_another_kind_is_no_checkpoint(tmp_path, content):
    (tmp_path / "model.pth").write_bytes(content)
    assert "not a PyTorch checkpoint" in message_of_loading(tmp_path / "model.pth")


def test_another_zip_archive_is_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "not a PyTorch checkpoint" in message_of_loading(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ([torch.ones(2)], "a list"),
        (torch.ones(2), "a Tensor"),
        ({}, "nothing in it"),
        ({"epoch": 3, "loss": 0.5}, "'epoch', 'loss'"),
        ({"state_dict": {"epoch": 3}}, "'epoch'"),
    ],
    ids=["list", "tensor", "empty dict", "numbers", "wrapped numbers"],
)
def test_a_checkpoint_without_weights_is_described(tmp_path, held, said):
    torch.save(held, tmp_path / "model.pth")
    assert said in message_of_loading(tmp_path / "model.pth")


def test_another_networks_first_names_are_listed(tmp_path):
    torch.save(nn.Sequential(nn.Linear(2, 2)).state_dict(), tmp_path / "model.pth")
    message = message_of_loading(tmp_path / "model.pth")
    assert "missing: down_conv1.0.weight, down_conv1.0.bias, down_conv1.2.weight and 43 more" in message
    assert "unexpected: 0.weight, 0.bias" in message


@pytest.mark.parametrize(("channels", "said"), [((1, 1), "down_conv1.0.weight [2, 1, 3, 3]"), ((3, 2), "[2, 2, 1, 1]")])
def test_other_numbers_of_channels_are_named(tmp_path, channels, said):
    torch.save(UNet(*channels, 2).state_dict(), tmp_path / "model.pth")
    message = message_of_loading(tmp_path / "model.pth")
    assert "wrong shape" in message and said in message and "missing" not in message


@pytest.mark.parametrize("name", ["up_sample3.bias", "down_conv1.0.weight", "final_conv.weight"])
def test_a_single_missing_tensor_is_named(tmp_path, name):
    weights = coursework_checkpoint(64 if name == "down_conv1.0.weight" else 2)
    del weights[name]
    torch.save(weights, tmp_path / "model.pth")
    assert f"(missing: {name})" in message_of_loading(tmp_path / "model.pth")


def test_a_single_tensor_too_many_is_named(tmp_path):
    torch.save({**coursework_checkpoint(), "extra.weight": torch.ones(1)}, tmp_path / "model.pth")
    assert "(unexpected: extra.weight)" in message_of_loading(tmp_path / "model.pth")


@pytest.mark.parametrize(
    "first",
    [torch.tensor(1.0), torch.ones(0, 3, 3, 3), torch.ones(1).expand(10**9, 3, 3, 3), torch.ones(2), 5],
    ids=["scalar", "empty", "endless", "vector", "number"],
)
def test_a_nonsense_first_layer_is_an_error_like_any_other(tmp_path, first):
    torch.save({**coursework_checkpoint(), "down_conv1.0.weight": first}, tmp_path / "model.pth")
    assert "down_conv1.0.weight" in message_of_loading(tmp_path / "model.pth")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_milesials_network_is_recognised_by_its_names(tmp_path, prefix):
    names = ["inc.double_conv.0.weight", "inc.double_conv.1.running_mean", "down1.maxpool_conv.1.double_conv.0.weight"]
    saved = {prefix + name: torch.ones(2) for name in [*names, "up1.up.weight", "outc.conv.weight"]}
    torch.save({**saved, "mask_values": [0, 1]}, tmp_path / "model.pth")
    assert "milesial/Pytorch-UNet" in message_of_loading(tmp_path / "model.pth")


def test_a_tensor_that_repeats_a_few_stored_numbers_is_refused(tmp_path):
    """Converted to float32, a file of some kilobytes would fill the memory."""
    torch.save(
        {**coursework_checkpoint(64), "middle_conv.2.weight": torch.zeros(1).expand(1024, 1024, 3, 3)},
        tmp_path / "model.pth",
    )
    assert "middle_conv.2.weight holds fewer numbers than its shape [1024, 1024, 3, 3]" in message_of_loading(
        tmp_path / "model.pth"
    )


@pytest.mark.parametrize(
    ("bias", "said"),
    [
        (torch.tensor([float("nan")]), "NaN"),
        (torch.tensor([float("inf")]), "NaN"),
        (torch.tensor([1]), "int64"),
        (torch.ones(1, device="meta"), "no values"),
        (torch.ones(1).to_sparse(), "sparse"),
    ],
    ids=["NaN", "infinity", "integer", "meta", "sparse"],
)
def test_weights_that_are_no_numbers_are_refused(tmp_path, bias, said):
    torch.save({**coursework_checkpoint(), "final_conv.bias": bias}, tmp_path / "model.pth")
    message = message_of_loading(tmp_path / "model.pth")
    assert said in message and "final_conv.bias" in message


def test_folding_norms_gives_a_plain_network_of_the_same_scores():
    torch.manual_seed(0)
    model, images = UNet(3, 1, base_channels=2), torch.rand(4, 3, 32, 48)
    names = list(model.state_dict())
    add_norms(model)
    for _ in range(20):
        model(images)  # learns the means and deviations
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    expected = model.eval()(images)
    fold_norms(model)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(images), expected, atol=1e-4, rtol=1e-4)
