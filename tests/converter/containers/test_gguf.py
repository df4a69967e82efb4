"""GGUF files written by the format's own package: values, shapes, exports, refusals."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.numpy
import torch
from gguf import GGMLQuantizationType as Type

from converter.bundle import Bundle
from converter.containers.gguf_file import TYPES
from converter.containers.opening import open_checkpoint
from converter.errors import InputError
from converter.export import ExportRequest, export
from converter.inspection import inspect
from converter.quantised import AT_ONCE, BLOCKS
from converter.weights import Array
from tests.conftest import SmallModel
from tests.converter.containers.test_export_equality import UNET, assert_same_weights

Weights = dict[str, torch.Tensor]
Stored = Mapping[str, tuple[Array, Type]]
"""Name -> values as stored, and their type."""


def save(path: Path, tensors: Stored, entries: Mapping[str, Any] | None = None) -> Path:
    writer = gguf.GGUFWriter(path, "sd1")
    writer.add_string("general.name", "toy")
    writer.add_array("tokens", ["a", "", "b"])
    writer.add_array("scores", [0.5] * 20)
    for name, value in (entries or {}).items():
        if isinstance(value, list):
            writer.add_array(name, value)
        elif value:
            writer.add_custom_alignment(value)
        else:
            writer.add_uint32(name, value)
    for name, (stored, kind) in tensors.items():
        writer.add_tensor(name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_tables_are_those_of_the_format() -> None:
    assert {Type(number).name: number for number in TYPES} == {n: t for t, n in TYPES.items()}
    sizes = gguf.GGML_QUANT_SIZES
    assert {name: sizes[Type[name]] for name in BLOCKS} == BLOCKS
    assert set(BLOCKS) < set(TYPES.values())


@pytest.mark.parametrize("kind", [Type.F64, Type.F32, Type.F16, Type.BF16, Type.I32, Type.I64])
def test_plain_types_are_views_of_the_file(kind: Type, tmp_path: Path) -> None:
    values = np.arange(-12, 12).reshape(2, 3, 4)
    if kind == Type.BF16:
        stored = gguf.quants.quantize(values.astype(np.float32), kind)
    else:
        stored = values.astype({"F": "float", "I": "int"}[kind.name[0]] + kind.name[1:])
    file = open_checkpoint(save(tmp_path / "x.gguf", {"a": (stored, kind)}))
    assert file.container == "GGUF" and file.metadata["general.name"] == "toy"
    assert file.tensors["a"].dtype == kind.name
    np.testing.assert_array_equal(file.read("a").astype(np.float64), values)
    assert not file.read("a").flags.writeable


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_quantised_type_is_what_its_own_package_reads(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    numbers, size = BLOCKS[kind]
    shapes = {"a": (3, 2, size * 3), "b": (1, size * (AT_ONCE // numbers + 3))}
    tensors = {}
    for name, shape in shapes.items():
        stored = random.integers(0, 256, shape, np.uint8)
        halves = stored.reshape(-1, size)
        # Scales are float16 at either end of a block: keep them finite.
        halves[:, [1, 3, size - 1, size - 3]] &= 0x3B
        tensors[name] = (stored, Type[kind])
    path = save(tmp_path / "x.gguf", tensors)
    file = open_checkpoint(path)
    for tensor in gguf.GGUFReader(path).tensors:
        wanted = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        found = file.read(tensor.name)
        assert np.isfinite(wanted).all() and wanted.std() > 0
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, wanted.reshape(found.shape))
        assert found.shape == wanted.shape


def test_blocks_are_scales_times_small_numbers(tmp_path: Path) -> None:
    """The formulas of the format, in float64, for three kinds of block."""
    random = np.random.default_rng(1)
    scales = (random.random(6) + 0.5).astype(np.float16)
    wide = random.integers(-128, 128, (6, 32), np.int8)
    q8 = np.concatenate([scales.view(np.uint8).reshape(6, 2), wide.view(np.uint8)], axis=1)
    narrow = random.integers(0, 16, (6, 32), np.uint8)
    nibbles = narrow[:, :16] | (narrow[:, 16:] << 4)
    q4 = np.concatenate([scales.view(np.uint8).reshape(6, 2), nibbles], axis=1)
    six = random.integers(0, 64, (1, 256), np.uint8)
    groups = random.integers(-128, 128, (1, 16), np.int8)
    low, high = np.zeros((1, 128), np.uint8), np.zeros((1, 64), np.uint8)
    for index in range(256):  # halves of 128; in each, four runs of 32 share their bytes
        half, run, place = index // 128, index % 128 // 32, index % 32
        value = int(six[0, index])
        low[0, 64 * half + 32 * (run % 2) + place] |= (value & 15) << (4 * (run // 2))
        high[0, 32 * half + place] |= (value >> 4) << (2 * run)
    parts = [low, high, groups.view(np.uint8), scales[:1].view(np.uint8).reshape(1, 2)]
    q6 = np.concatenate(parts, axis=1)
    file = open_checkpoint(
        save(
            tmp_path / "x.gguf",
            {"q8": (q8, Type.Q8_0), "q4": (q4, Type.Q4_0), "q6": (q6, Type.Q6_K)},
        )
    )
    exact = scales.astype(np.float64)[:, None]
    wanted = {
        "q8": exact * wide,
        "q4": exact * (narrow.astype(np.float64) - 8),
        "q6": exact[:1] * np.repeat(groups.astype(np.float64), 16, axis=1) * (six - 32.0),
    }
    for name, values in wanted.items():
        np.testing.assert_allclose(file.read(name), values, rtol=1e-6, atol=0)


def test_a_folded_tensor_has_the_shape_that_it_had(tmp_path: Path) -> None:
    values = np.arange(1024, dtype=np.float32)
    stored = gguf.quants.quantize(values.reshape(4, 256), Type.Q8_0)
    entries = {"comfy.gguf.orig_shape.a": [32, 32, 1, 1], "general.alignment": 64}
    file = open_checkpoint(save(tmp_path / "x.gguf", {"a": (stored, Type.Q8_0)}, entries))
    assert file.tensors["a"].shape == (32, 32, 1, 1)
    np.testing.assert_allclose(file.read("a").reshape(-1), values, atol=4)
    wrong = {"comfy.gguf.orig_shape.a": [32, 31]}
    with pytest.raises(InputError, match=r"cannot have had shape \[32, 31\]"):
        open_checkpoint(save(tmp_path / "y.gguf", {"a": (stored, Type.Q8_0)}, wrong))


def test_a_whole_checkpoint_exports_what_the_single_file_does(
    weights: Weights, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    """As stable-diffusion.cpp writes it: original names."""
    tensors = {name: (tensor.numpy(), Type.F16) for name, tensor in weights.items()}
    path = save(tmp_path / "x.gguf", tensors)
    assert inspect(path).problems == []
    bundle = export(ExportRequest(path, tmp_path / "out", profile="diffusers"))
    assert_same_weights(bundle, diffusers_bundle)
    assert {Path(source["path"]) for source in bundle.sources} == {path}


@pytest.mark.parametrize("kind", [Type.Q8_0, Type.Q4_0])
def test_a_quantised_unet_exports_its_values(
    kind: Type, weights: Weights, small_model: SmallModel, tmp_path: Path
) -> None:
    """As ComfyUI-GGUF writes it: a UNet without prefix, matrices quantised, some folded."""
    tensors: dict[str, tuple[Array, Type]] = {}
    entries, plain = {}, {}
    for name, tensor in weights.items():
        if not name.startswith(UNET):
            continue
        key, values = name.removeprefix(UNET), tensor.float().numpy()
        if values.ndim == 2 or values.shape[2:] == (1, 1):
            if values.shape[-1] % 32:
                entries[f"comfy.gguf.orig_shape.{key}"] = list(values.shape)
            rows = values.reshape(-1, 32 if values.shape[-1] % 32 else values.shape[-1])
            stored = gguf.quants.quantize(rows, kind)
            tensors[key] = stored, kind
            plain[key] = gguf.quants.dequantize(stored, kind).reshape(values.shape)
        else:
            tensors[key] = values, Type.F32
            plain[key] = values
    safetensors.numpy.save_file(plain, tmp_path / "x.safetensors")
    quantised = save(tmp_path / "x.gguf", tensors, entries)
    found = inspect(quantised)
    assert entries and (found.kind, found.family, found.problems) == ("unet", "sd15", [])

    def exported(unet: Path) -> Bundle:
        out = tmp_path / unet.suffix
        parts = {"unet": unet}
        return export(ExportRequest(small_model.checkpoint, out, components=("unet",), parts=parts))

    assert_same_weights(exported(quantised), exported(tmp_path / "x.safetensors"))


def refused(path: Path, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_what_is_no_whole_file_is_refused(tmp_path: Path) -> None:
    ones = np.ones((2, 16), np.float32)
    whole = save(tmp_path / "x.gguf", {"a": (ones, Type.F32), "bb": (ones, Type.F32)}).read_bytes()
    path = tmp_path / "bad.gguf"

    def edited(old: bytes, new: bytes) -> Path:
        assert whole.count(old) == 1
        path.write_bytes(whole.replace(old, new))
        return path

    for size in range(4, len(whole), 7):
        path.write_bytes(whole[:size])
        refused(path, "not a" if size < 8 else "not a whole GGUF file")
    version = struct.pack("<I", 3)
    refused(edited(b"GGUF" + version, b"GGUF" + struct.pack("<I", 1)), "GGUF of version 1,")
    refused(edited(b"GGUF" + version, b"GGUF" + struct.pack(">I", 3)), "little-endian")
    name = struct.pack("<Q", 2) + b"bb"
    refused(edited(name, struct.pack("<Q", 2) + b"\xff\xff"), "a text that is none")
    axes = struct.pack("<IQQI", 2, 16, 2, Type.F32)
    refused(edited(name + axes, name + struct.pack("<IQQI", 2, 16, 2, Type.TQ1_0)), "type 34")
    refused(edited(name + axes, name + struct.pack("<IQQI", 2, 16, 2, Type.Q8_0)), "whole blocks")
    refused(edited(name + axes, name + struct.pack("<IQQI", 99, 16, 2, 0)), "claims 99 axes")
    again = save(tmp_path / "y.gguf", {"a": (ones, Type.F32), "b": (ones, Type.F32)}).read_bytes()
    path.write_bytes(again.replace(struct.pack("<Q", 1) + b"b", struct.pack("<Q", 1) + b"a"))
    refused(path, "two tensors are called 'a'")
    refused(
        save(tmp_path / "z.gguf", {"a": (ones, Type.F32)}, {"general.alignment": 0}), "alignment"
    )
