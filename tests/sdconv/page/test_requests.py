"""An order makes the requests that its command lines make."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import converter.export
import runtime.calibration
import targets.compile
import validate.validate
from converter.errors import InputError
from converter.export import ExportRequest
from sdconv.main import run
from sdconv.page.order import Order
from sdconv.page.requests import requests_of, shown_requests
from targets.compile import CompileRequest

ORDER = Order(
    checkpoint="small.safetensors",
    loras=(("style.safetensors", "0.7,unet=1"), ("a b.safetensors", "")),
    controlnets=("net.safetensors",),
    parts={"vae": "vae.safetensors"},
    embeddings=(("toy.pt", "toy"),),
    profile="sd-lcm-tpu",
    clip_skip=2,
    prediction="epsilon",
    allow_unused=True,
    components=("unet", "vae_decoder"),
    targets=("onnxruntime",),
    sizes="64x64,128x64",
    precision={"onnxruntime": "unet=f32"},
    emulator_minutes=2,
)


def located(source: str) -> Path:
    return Path(source)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"targets": ("onnxruntime", "bm1684x"), "precision": {"bm1684x": "unet=bf16"}},
        {"prompt": "a red circle"},
        {"precision": {"bm1684x": "unet=int8"}, "targets": ("bm1684x",), "prompt": "it's"},
        {"steps": "export", "format": "both", "batch": 2},
        {"steps": "compile", "bundle": "out", "batch": 2, "effort": "high"},
    ],
)
def test_the_commands_make_the_same_requests(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    order = Order(**{**ORDER.__dict__, **changes})
    wanted = requests_of(order, located, Path())
    made: list[Any] = []

    def record(request: object, *_: object, **__: object) -> None:
        made.append(request)
        raise InputError("recorded")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(converter.export, "export", record)
    monkeypatch.setattr(runtime.calibration, "calibrate", record)
    monkeypatch.setattr(targets.compile, "compile_bundle", record)
    monkeypatch.setattr(validate.validate, "validate", record)
    monkeypatch.setattr("converter.bundle.Bundle.load", lambda _: _Advised())
    monkeypatch.setattr("targets.manifest.Manifest.load", lambda _: _Advised())
    commands = wanted.commands()
    for command in commands:
        assert run(shlex.split(command)[1:]) == 2, command
    exports = [r for r in made if isinstance(r, ExportRequest)]
    # A command says the batch, which the order leaves to the profile.
    assert exports == [replace(r, batch=r.unet_batch) for r in (wanted.export,) if r is not None]
    assert [r for r in made if isinstance(r, CompileRequest)] == [*wanted.compiles]
    assert ("--format both" in commands[0]) == (order.format == "both")
    judging = [r for r in made if isinstance(r, validate.validate.ValidateRequest)]
    assert [r.emulator_budget for r in judging] == [120.0] * len(judging)
    assert [r.picture.prompt for r in judging if r.picture] == [order.prompt] * bool(order.prompt)
    assert any("calibrate" in c for c in commands) == ("int8" in str(order.precision))


class _Advised:
    """A bundle, or the manifest of one, that recommends nothing."""

    sampling = None
    recipe: Mapping[str, Any] = {}
    commands: Mapping[str, Any] = {}

    def load_bundle(self, _: object) -> "_Advised":
        return self


def test_what_is_shown_names_addresses_and_no_folder() -> None:
    order = Order(
        checkpoint="https://host/a.safetensors",
        loras=(("input:my_lora.safetensors", "0.5"), ("hf:owner/name", "1")),
        targets=("onnxruntime",),
        sizes="64x64",
    )
    export, compiling = shown_requests(order).commands()
    assert export.startswith(
        "sdconv export -u https://host/a.safetensors -l my_lora.safetensors:0.5 -l hf:owner/name:1 "
        "-o bundle"
    )
    assert compiling.startswith("sdconv compile -n bundle --target onnxruntime")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"checkpoint": "", "parts": {}}, "no checkpoint is chosen"),
        ({"targets": ()}, "no target is chosen"),
        ({"targets": ("abacus",)}, "unknown target"),
        ({"sizes": "big"}, "is not WIDTHxHEIGHT"),
        ({"sizes": ""}, "no size given"),
        ({"precision": {"onnxruntime": "f16"}}, "is not COMPONENT=PRECISION"),
        ({"loras": (("l", "much"),)}, "is no number"),
        ({"embeddings": (("e", "<|endoftext|>"),)}, "cannot be named"),
    ],
)
def test_mistakes_are_found_before_anything_is_done(changes: dict[str, Any], reason: str) -> None:
    order = Order(**{**ORDER.__dict__, **changes})
    with pytest.raises(InputError, match=reason):
        requests_of(order, located, Path())
