"""A compiler with one wrong operator: the graph shrinks to it, and the folder still shows it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converter.bundle import Bundle
from converter.errors import InputError
from converter.files import read_json, write_json
from converter.sizes import Size
from sdconv.main import run
from targets.base import Artifact, Runner
from targets.compile import CompileRequest, compile_bundle
from targets.onnxruntime import OnnxRuntimeRunner, OnnxRuntimeTarget
from targets.registry import TARGETS
from validate.base import Level, Report, Verdict
from validate.reduce.folder import FOLDER, reduce_all
from validate.reduce.repro import GRAPH, INPUTS, REPRO_FILE, run_repro
from validate.validate import ValidateRequest, validate


class Crooked(OnnxRuntimeTarget):
    """Takes a sigmoid for a softmax."""

    name = "crooked"

    def open(self, artifact: Artifact, folder: Path) -> Runner:
        path = folder / artifact.path
        model = ir.load(path)
        for node in model.graph:
            if node.op_type == "Softmax":
                node.op_type = "Sigmoid"
                node.attributes.clear()
        spoilt = path.with_name(f"crooked-{path.name}")
        ir.save(model, spoilt)
        return OnnxRuntimeRunner(spoilt)


@pytest.fixture
def crooked(monkeypatch: pytest.MonkeyPatch) -> Crooked:
    target = Crooked()
    monkeypatch.setitem(TARGETS, "crooked", lambda: target)
    return target


@pytest.fixture
def artifacts(small_bundle: Bundle, crooked: Crooked, tmp_path: Path) -> Path:
    folder = tmp_path / "artifacts"
    compile_bundle(
        CompileRequest(
            small_bundle.folder, "crooked", (Size(64, 64),), folder, components=("text_encoder",)
        )
    )
    return folder


def look(artifacts: Path) -> tuple[Report, ValidateRequest]:
    request = ValidateRequest(artifacts, levels=(Level.COMPONENT,))
    return validate(request), request


def test_what_remains_is_the_operator_that_is_wrong(artifacts: Path) -> None:
    assert run(["validate", str(artifacts), "--level", "component", "--reduce"]) == 1
    (folder,) = (artifacts / FOLDER).iterdir()
    graph = onnx.load(folder / GRAPH).graph
    assert [node.op_type for node in graph.node] == ["Softmax"]
    assert run(["validate", str(folder)]) == 1
    words = (folder / "README.md").read_text()
    assert "1 of " in words and "Softmax(" in words
    assert f"sdconv validate {folder.name}" in words
    with np.load(folder / "expected.npz") as expected, np.load(folder / "got.npz") as got:
        (name,) = expected.files
        assert np.allclose(expected[name].sum(axis=-1), 1, atol=1e-5)
        assert not np.allclose(got[name].sum(axis=-1), 1, atol=1e-5)

    def mended(_: str) -> OnnxRuntimeTarget:
        return OnnxRuntimeTarget()

    assert run_repro(folder, mended)[1].verdict is Verdict.PASS


def test_a_target_that_computes_what_the_graph_says_is_not_to_blame(artifacts: Path) -> None:
    report, request = look(artifacts)
    (reduction,) = reduce_all(report, request, lambda _: None, lambda _: OnnxRuntimeTarget())
    assert reduction.folder is None
    assert "compiled once more, the target computes what the graph says" in reduction.sentence


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / INPUTS).unlink(), "missing: reduce again"),
        (lambda folder: _changed(folder, schema=2), "schema 2 is not known here"),
        (lambda folder: _changed(folder, more=1), "damaged"),
    ],
    ids=["inputs", "schema", "key"],
)
def test_a_damaged_folder_is_one_line(
    damage: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    threshold = {"precision": "f32", "psnr_db": 80, "expected_db": 110, "cosine": 0.9,
                 "gain": None, "max_abs_error": None, "reason": "why"}  # fmt: skip
    record = {"schema": 1, "label": "x", "component": "unet", "target": "onnxruntime",
              "precision": "f32", "lowered": False, "threshold": threshold, "sentence": "s",
              "versions": {}}  # fmt: skip
    write_json(tmp_path / REPRO_FILE, record)
    (tmp_path / GRAPH).write_bytes(b"")
    (tmp_path / INPUTS).write_bytes(b"")
    damage(tmp_path)
    with pytest.raises(InputError, match=words):
        run_repro(tmp_path)


def _changed(folder: Path, **values: object) -> None:
    write_json(folder / REPRO_FILE, {**read_json(folder / REPRO_FILE, "a repro"), **values})
