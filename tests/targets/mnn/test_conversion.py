"""The converter says that it succeeded, whatever happened: what has to be noticed is noticed."""

import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest

from converter.progress import silent
from passes.linked_weights import read_graph
from targets.base import ToolchainError
from targets.mnn.conversion import MODEL_FILE, convert_graph, unbound
from targets.mnn.model import UnreadableModelError, read_model
from targets.mnn.precisions import PRECISIONS
from targets.mnn.runner import MnnRunner, Session
from targets.mnn.toolchain import Mnn
from tests.targets.mnn.micro import micro_graph, micro_job

F32 = PRECISIONS["f32"]


class Wrapped(Mnn):
    """MNN behind a script: `$real "$@"` in its text converts."""

    def __init__(self, script: Path) -> None:
        self._script = script

    @property
    def python(self) -> Path:
        return self._script


def wrapped(mnn: Mnn, folder: Path, text: str) -> Mnn:
    script = folder / "python"
    script.write_text(f"#!/bin/sh\nreal={mnn.python}\n{textwrap.dedent(text)}\n")
    script.chmod(0o755)
    return Wrapped(script)


@pytest.mark.parametrize(
    ("text", "noticed"),
    [
        ('echo "Converted Success!"', "it wrote no model.mnn and no model.mnn.weight"),
        ('$real "$@" | grep -v Success', "it did not say that it succeeded"),
        ('$real "$@"; truncate -s -4 model.mnn.weight', "bytes, and model.mnn reads"),
        ('$real "$@"; rm model.mnn.weight', "it wrote no model.mnn.weight"),
        ('$real "$@"; head -c 40 model.mnn > x; mv x model.mnn', "no model that can be read"),
        ('$real "$@"; echo "Not support option: --hqqq"', "an option was not taken"),
        ('$real "$@"; sed -i s/product/prodigy/g model.mnn', "prodigy"),
        ('echo "broken"; exit 3', "broken"),
    ],
)
def test_a_failed_conversion_is_a_failure(
    text: str, noticed: str, mnn: Mnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = micro_job(tmp_path)
    toolchain = wrapped(mnn, tmp_path, text)
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path / "home"))  # where the repro folder goes
    with pytest.raises(ToolchainError) as caught:
        convert_graph(toolchain, job, F32, micro_graph(job), None, tmp_path, silent)
    said = str(caught.value)
    assert noticed in said
    assert "\n" not in said
    (repro,) = (tmp_path / "home" / "cache" / "failures").iterdir()
    assert f"'sh {repro / 'repro.sh'}' does it again" in said
    assert {"convert.py", "convert.log", "repro.sh", "model.onnx"} <= {
        file.name for file in repro.iterdir()
    }


def test_weights_of_another_conversion_are_noticed(mnn: Mnn, tmp_path: Path) -> None:
    """Two in one folder give files of the right size with each other's weights."""
    job, _ = micro_job(tmp_path)
    other = '$real "$@"; head -c 1000 /dev/zero | dd of=model.mnn.weight conv=notrunc'
    toolchain = wrapped(mnn, tmp_path, other)
    convert_graph(toolchain, job, F32, micro_graph(job), None, tmp_path, silent)
    assert "are in no known form" in (unbound(tmp_path) or "")


def test_an_operator_that_is_not_supported_is_named(
    mnn: Mnn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, network = micro_job(tmp_path)
    toolchain = Wrapped(mnn.python)
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path / "home"))
    model = onnx.load(network.graph, load_external_data=False)
    model.graph.node[0].op_type = "Convolve"
    onnx.save(model, network.graph)
    with pytest.raises(ToolchainError, match="ONNX::Convolve"):
        convert_graph(toolchain, job, F32, read_graph(network.graph), None, tmp_path, silent)


def test_a_skeleton_holds_no_placeholder(mnn: Mnn, tmp_path: Path) -> None:
    job, _ = micro_job(tmp_path)
    convert_graph(mnn, job, F32, micro_graph(job), None, tmp_path, silent)
    assert unbound(tmp_path) is None
    kept = {file.name for file in tmp_path.iterdir()} - {"micro.onnx", "w"}
    assert kept == {MODEL_FILE, "weights.json", "convert.log"}
    assert read_model(tmp_path / MODEL_FILE).weights_nbytes > 0


def test_with_its_weights_a_model_is_run_before_it_counts(mnn: Mnn, tmp_path: Path) -> None:
    job, network = micro_job(tmp_path)
    made = tmp_path / "made"
    made.mkdir()
    convert_graph(mnn, job, F32, micro_graph(job), network.weights, made, silent)
    with MnnRunner(mnn, Session(mnn.python), made / MODEL_FILE) as runner:
        product = runner.infer({"picture": network.picture})["product"]
    assert np.allclose(product, network.product, atol=1e-4)
    bad = network.values["kernel"].copy()
    bad[0, 0, 0, 0] = np.nan
    content = bytearray(network.weights.read_bytes())
    content[: bad.nbytes] = bad.tobytes()
    network.weights.write_bytes(content)
    broken = tmp_path / "broken"
    broken.mkdir()
    with pytest.raises(ToolchainError, match="product has values that are none"):
        convert_graph(mnn, job, F32, micro_graph(job), network.weights, broken, silent)


@pytest.mark.parametrize("content", [b"", b"short", b"\x10\0\0\0" + bytes(60), b"x" * 4096])
def test_what_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.mnn"
    path.write_bytes(content)
    with pytest.raises(UnreadableModelError, match=r"x\.mnn: no model that can be read"):
        read_model(path)
