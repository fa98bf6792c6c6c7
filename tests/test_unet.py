"""The U-Net is the coursework's, and `load_unet` opens every checkpoint of it, and nothing else."""

import argparse
import bz2
import contextlib
import gzip
import io
import lzma
import os
import pickle
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from unet import CropAndConcat, UNet, add_norms, load_unet

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


def prefixed(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in weights.items()}


def saved(path: Path, checkpoint: object, **options: object) -> Path:
    torch.save(checkpoint, path, **options)
    return path


def assert_loads(path: Path, weights: dict[str, torch.Tensor]) -> None:
    loaded = load_unet(path, CPU).state_dict()
    assert [name for name in weights if not torch.equal(loaded[name], weights[name])] == []


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


def test_a_seed_gives_the_first_weights_that_it_has_always_given():
    """So that the report's runs can be repeated."""
    torch.manual_seed(0)
    model = UNet(3, 1, 2)
    first = [model.down_conv1[0].weight[0, 0, 0, 0], model.up_sample2.weight[0, 0, 0, 0], model.final_conv.weight[0, 0]]
    assert [value.item() for value in first] == pytest.approx([-0.090652, 0.072226, 0.091451], abs=1e-5)
    assert sum(value.double().abs().sum().item() for value in model.state_dict().values()) == pytest.approx(2603.4842)
    assert torch.rand(1).item() == pytest.approx(0.3319277)


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
    checkpoint = prefixed(prefix, weights)
    if wrapper:
        checkpoint = {"epoch": 3, wrapper: checkpoint, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
    assert_loads(saved(tmp_path / "model.pth", checkpoint), weights)


PREFIXES = [
    *("_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "_fsdp_wrapped_module."),
    *("model.", "unet.", "net.unet.", "model._orig_mod.", "module.net.unet."),
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_that_all_names_have_is_taken_off(tmp_path, prefix):
    weights = coursework_checkpoint(1)
    assert_loads(saved(tmp_path / "model.pth", prefixed(prefix, weights)), weights)


@pytest.mark.parametrize("prefix", ["module.", *PREFIXES])
def test_tensors_without_the_networks_prefix_are_left_out(tmp_path, prefix):
    weights = coursework_checkpoint(1)
    beside = {"loss_fn.pos_weight": torch.ones(1), "val_dice.total": torch.tensor(3), "n_averaged": torch.tensor(5)}
    lightning = {"state_dict": {**beside, **prefixed(prefix, weights)}, "pytorch-lightning_version": "2.5.0"}
    assert_loads(saved(tmp_path / "model.pth", lightning), weights)


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
@pytest.mark.parametrize("part", ["_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_a_submodule_that_was_wrapped_alone_keeps_its_name(tmp_path, part, prefix):
    weights = coursework_checkpoint(1)
    for block in ("middle_conv.", "final_conv."):
        wrapped = {name.replace(block, f"{block}{part}."): value for name, value in weights.items()}
        assert_loads(saved(tmp_path / "model.pth", prefixed(prefix, wrapped)), weights)


def test_an_averaged_model_loads(tmp_path):
    model = UNet(3, 1, 1)
    assert_loads(saved(tmp_path / "model.pth", AveragedModel(model).state_dict()), model.state_dict())


@pytest.mark.parametrize(
    "beside",
    [
        {"mask_values": [0, 1]},
        {"epoch": 3, "name": "U-Net", "best": None},
        {"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
    ],
    ids=["mask values", "scalars", "optimizer"],
)
def test_what_is_no_tensor_may_lie_beside_the_weights(tmp_path, beside):
    weights = coursework_checkpoint(1)
    assert_loads(saved(tmp_path / "model.pth", {**weights, **beside}), weights)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"epoch": 3, "ema_weights": weights},
        lambda weights: {"training": {"epoch": 3, "best": {"weights": weights}}},
        lambda weights: {"module": weights, "global_steps": 9},
        lambda weights: {3: weights},
        lambda weights: {0.999: weights},
        lambda weights: {("ema", 2): weights},
        lambda weights: [weights],
        lambda weights: ({"lr": 0.1}, weights),
        lambda weights: {"models": [weights]},
        lambda weights: {"last": weights, "best": weights},
    ],
    ids=[
        "key",
        "three deep",
        "DeepSpeed",
        "int",
        "float",
        "tuple key",
        "list",
        "tuple",
        "list inside",
        "twice the same",
    ],
)
def test_the_only_network_in_a_file_is_found_wherever_it_lies(tmp_path, wrap):
    weights = coursework_checkpoint(1)
    assert_loads(saved(tmp_path / "model.pth", wrap(weights)), weights)


def test_a_dictionary_that_holds_itself_is_looked_through_once(tmp_path):
    weights = coursework_checkpoint(1)
    checkpoint = {"weights": weights, "history": []}
    checkpoint["itself"] = checkpoint
    checkpoint["history"].append(checkpoint["history"])
    assert_loads(saved(tmp_path / "model.pth", checkpoint), weights)


def test_dictionaries_in_dictionaries_without_end_are_no_traceback(tmp_path):
    depth = 100_000  # as pickle.dump itself could not write them
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02" + b"}X\x01\0\0\0a" * depth + b"}" + b"s" * depth + b".")
        archive.writestr("model/version", "3\n")
        archive.writestr("model/byteorder", "little")
    assert "no tensors" in message_of_loading(tmp_path / "model.pth")


@pytest.mark.parametrize(
    "several",
    [
        lambda weights, others: {"net": others, "model": others, "model_state_dict": others, "state_dict": weights},
        lambda weights, others: {"net": others, "model": others, "model_state_dict": weights},
        lambda weights, others: {"net": others, "model": weights},
        lambda weights, others: {"ema": others, "net": weights},
        lambda weights, others: {"ema": {"state_dict": others}, "model": weights},
        lambda weights, others: {"run": {"ema": others, "model": weights}},
        lambda weights, others: {"ema": others, "state_dict": prefixed("unet.", weights)},
        lambda weights, others: {"state_dict": {**prefixed("ema_model.", others), **prefixed("model.", weights)}},
    ],
    ids=["state_dict", "model_state_dict", "model", "net", "outermost key", "deeper", "with prefix", "prefixes"],
)
def test_of_several_networks_the_one_in_the_usual_place_is_taken(tmp_path, several):
    weights = coursework_checkpoint(1)
    others = {name: value + 1 for name, value in weights.items()}
    assert_loads(saved(tmp_path / "model.pth", several(weights, others)), weights)


@pytest.mark.parametrize(
    ("several", "said"),
    [
        (lambda one, other: {"ema": one, "swa": other}, "('ema', 'swa')"),
        (
            lambda one, other: {"best": {"model": one}, "last": {"state_dict": other}},
            "('best.model', 'last.state_dict')",
        ),
        (lambda one, other: [one, other], "('0', '1')"),
        (lambda one, other: {**prefixed("student.", one), **prefixed("teacher.", other)}, "('student', 'teacher')"),
        (lambda one, other: {**one, "ema": other}, "('top level', 'ema')"),
        (lambda one, other: {**one, **prefixed("module.", other)}, "('top level', 'module')"),
    ],
    ids=["keys", "the same depth", "list", "prefixes", "inside and beside", "plain and wrapped"],
)
def test_several_networks_of_equal_right_are_named_and_refused(tmp_path, several, said):
    one, other = coursework_checkpoint(1), {name: value + 1 for name, value in coursework_checkpoint(1).items()}
    message = message_of_loading(saved(tmp_path / "model.pth", several(one, other)))
    assert f"several networks {said}" in message


def test_two_tensors_under_one_name_are_not_chosen_from(tmp_path):
    checkpoint = {**coursework_checkpoint(1), "final_conv._orig_mod.bias": torch.ones(1)}
    assert "(unexpected: final_conv._orig_mod.bias)" in message_of_loading(saved(tmp_path / "model.pth", checkpoint))


@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.9),
        np.float32(0.9),
        np.int64(3),
        np.bool_(True),
        np.str_("car"),
        np.arange(3.0),
        np.array([{"a": 1}], dtype=object),
        np.random.get_state(),
        argparse.Namespace(lr=0.1, out=Path("runs")),
        Path("runs/best"),
        torch.__version__,
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_of_numpy_and_the_like_may_lie_beside_the_weights(tmp_path, value):
    weights = coursework_checkpoint(1)
    before = set(torch.serialization.get_safe_globals())
    assert_loads(saved(tmp_path / "model.pth", {"state_dict": weights, "beside": value}), weights)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("module", [b"numpy.core.", b"numpy._core."], ids=["NumPy 1", "NumPy 2"])
def test_a_value_of_either_numpy_may_lie_beside_the_weights(tmp_path, module):
    path, weights = tmp_path / "model.pth", coursework_checkpoint(1)
    with zipfile.ZipFile(saved(path, {"model": weights, "dice": np.float64(0.9)})) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, re.sub(rb"numpy\._?core\.", module, content) if name.endswith("pkl") else content)
    assert module in path.read_bytes()
    assert_loads(path, weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_saved_as_parameters_load_and_can_be_trained(tmp_path, dtype):
    weights = {name: value.to(dtype) for name, value in coursework_checkpoint(1).items()}
    frozen = {name: nn.Parameter(value, requires_grad=name < "m") for name, value in weights.items()}
    path = saved(tmp_path / "model.pth", frozen)
    assert_loads(path, {name: value.float() for name, value in weights.items()})
    model = load_unet(path, CPU)
    model(torch.rand(1, 3, 16, 16)).sum().backward()
    assert all(parameter.is_leaf and parameter.grad is not None for parameter in model.parameters())


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


def zipped(**entries: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, value in entries.items():
            archive.writestr(name.replace("__", "/"), value)
    return content.getvalue()


def tarred(content: bytes) -> bytes:
    file, entry = io.BytesIO(), tarfile.TarInfo("model.pth")
    entry.size = len(content)
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def file_of(write, *values: object, **options: object) -> bytes:
    content = io.BytesIO()
    write(content, *values, **options)
    return content.getvalue()


CHECKPOINT = file_of(lambda file: torch.save(coursework_checkpoint(1), file))


OTHER_FILES = {  # content, what it is called, and a word of what to do
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3\n",
        "Git LFS",
        "git lfs pull",
    ),
    "web page": (b"<!DOCTYPE html><html>Not found</html>", "web page", "raw link"),
    "small letters": (b"<!doctype HTML>" + b"<p>" * 1000, "web page", "raw link"),
    "after spaces": (b"\xef\xbb\xbf\r\n\t  <HTML lang=zh>" + "模型".encode(), "web page", "raw link"),
    "xml": (b"<?xml version='1.0'?><Error/>", "web page", "raw link"),
    "not found": (b"404: Not Found", "text", "raw link"),
    "json": (b'{"error": "Entry not found"}', "text", "raw link"),
    "text": ("模型\n".encode(), "text", "raw link"),
    "tar": (tarred(CHECKPOINT), "archive", "unpack"),
    "gz": (gzip.compress(CHECKPOINT), "archive", "unpack"),
    "bz2": (bz2.compress(CHECKPOINT), "archive", "unpack"),
    "xz": (lzma.compress(CHECKPOINT), "archive", "unpack"),
    "zst": (b"\x28\xb5\x2f\xfd\x04\x00" + CHECKPOINT, "archive", "unpack"),
    "7z": (b"7z\xbc\xaf\x27\x1c\x00\x04" + CHECKPOINT, "archive", "unpack"),
    "rar": (b"Rar!\x1a\x07\x01\x00" + CHECKPOINT, "archive", "unpack"),
    "zip": (zipped(model=CHECKPOINT), "archive", "unpack"),
    "zip of a folder": (zipped(weights__=b"", weights__model=CHECKPOINT), "archive", "unpack"),
    "empty zip": (zipped(), "archive", "unpack"),
    "safetensors": (
        (40).to_bytes(8, "little") + b'{"final_conv.bias":{"dtype":"F32"}}',
        "safetensors",
        "load_file",
    ),
    "npy": (file_of(np.save, np.ones(3)), "NumPy", "state_dict"),
    "npz": (file_of(np.savez, weight=np.ones(3)), "NumPy", "state_dict"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5", "state_dict"),
    "Keras": (zipped(**{"metadata.json": b"{}", "model.weights.h5": b""}), "Keras", "state_dict"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x052.5.1", "ONNX", "state_dict"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(100), "picture", "model.pth"),
    "JPEG": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "picture", "model.pth"),
    "zeros": (bytes(1000), "not a PyTorch checkpoint", "torch.save"),
}


@pytest.mark.parametrize(("content", "what", "cure"), OTHER_FILES.values(), ids=OTHER_FILES.keys())
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path, content, what, cure):
    (tmp_path / "model.pth").write_bytes(content)
    message = message_of_loading(tmp_path / "model.pth")
    assert message.startswith(str(tmp_path / "model.pth")) and what in message and cure in message


def test_an_encrypted_zip_is_an_archive_not_a_damaged_one(tmp_path):
    content = bytearray(zipped(model=CHECKPOINT))
    content[6] |= 1  # "encrypted", in the entry's own header and in the table of contents
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "model.pth").write_bytes(content)
    assert "archive: unpack" in message_of_loading(tmp_path / "model.pth")


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("how", ["pickle.dump", "torch.save", "old format"])
def test_a_newer_pickle_protocol_is_named_with_what_to_do(tmp_path, how, protocol):
    path, weights = tmp_path / "model.pth", coursework_checkpoint(1)
    if how == "pickle.dump":
        path.write_bytes(pickle.dumps(weights, protocol=protocol))
    else:
        saved(path, weights, pickle_protocol=protocol, _use_new_zipfile_serialization=how == "torch.save")
    message = message_of_loading(path)
    assert "protocol 4 or 5" in message
    assert "torch.save(model.state_dict(), path), without pickle_protocol" in message


def test_a_torchscript_archive_is_no_state_dict(tmp_path):
    with pytest.warns() if torch.__version__ >= "2.9" else contextlib.nullcontext():
        torch.jit.script(nn.ReLU()).save(tmp_path / "model.pth")
    assert "Script" in message_of_loading(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ([torch.ones(2)], "a list"),
        (torch.ones(2), "a Tensor"),
        ({}, "a dict of nothing"),
        ({"epoch": 3, "loss": 0.5}, "'epoch', 'loss'"),
        ({"state_dict": {"epoch": 3}}, "'state_dict'"),
        ({name: value.numpy() for name, value in coursework_checkpoint(1).items()}, "no tensors by name"),
    ],
    ids=["list", "tensor", "empty dict", "numbers", "wrapped numbers", "arrays"],
)
def test_a_checkpoint_without_weights_is_described(tmp_path, held, said):
    torch.save(held, tmp_path / "model.pth")
    assert said in message_of_loading(tmp_path / "model.pth")


@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: {"ema": x, "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}}]
)
@pytest.mark.parametrize("prefix", ["", "module.", "net.unet."])
def test_the_faults_of_a_wrapped_network_are_told_as_those_of_a_plain_one(tmp_path, prefix, wrap):
    weights = coursework_checkpoint(1)
    del weights["up_sample3.bias"]
    checkpoint = wrap(prefixed(prefix, {**weights, "extra.weight": torch.ones(1)}))
    message = message_of_loading(saved(tmp_path / "model.pth", checkpoint))
    assert "(missing: up_sample3.bias; unexpected: extra.weight)" in message


def test_names_from_a_file_cannot_break_the_line(tmp_path):
    checkpoint = {**coursework_checkpoint(1), "extra\n\x1b[31mweight": torch.ones(1)}
    message = message_of_loading(saved(tmp_path / "model.pth", checkpoint))
    assert "extra" in message and message.isprintable()


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


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"epoch": 3, "rng": torch.ones(9), "best": {"net": x}}])
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_milesials_network_is_recognised_by_its_names(tmp_path, prefix, wrap):
    names = ["inc.double_conv.0.weight", "inc.double_conv.1.running_mean", "down1.maxpool_conv.1.double_conv.0.weight"]
    weights = {name: torch.ones(2) for name in [*names, "up1.up.weight", "outc.conv.weight"]}
    checkpoint = wrap({**prefixed(prefix, weights), "mask_values": [0, 1]})
    assert "milesial/Pytorch-UNet" in message_of_loading(saved(tmp_path / "model.pth", checkpoint))


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
        (torch.ones(1, dtype=torch.complex64), "complex64"),
    ],
    ids=["NaN", "infinity", "integer", "meta", "sparse", "complex"],
)
def test_weights_that_are_no_numbers_are_refused(tmp_path, bias, said):
    torch.save({**coursework_checkpoint(), "final_conv.bias": bias}, tmp_path / "model.pth")
    message = message_of_loading(tmp_path / "model.pth")
    assert said in message and "final_conv.bias" in message


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_tensor_without_a_shape_is_none_of_the_network(tmp_path):
    nested = torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])
    path = saved(tmp_path / "model.pth", {**coursework_checkpoint(1), "final_conv.bias": nested})
    assert "missing: final_conv.bias" in message_of_loading(path)


def test_folding_norms_gives_a_plain_network_of_the_same_scores():
    from report.unet_recipe import fold_norms  # which imports most of the experiments

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
