"""Binding weights to a skeleton against converting with them: the same files, byte for byte."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converter.bundle import Bundle, BundleWeights
from converter.progress import silent
from converter.sizes import Size
from converter.weights import Array, TensorSpec, WeightSource
from passes import pipelines
from passes.linked_weights import read_graph
from passes.weights import weight_places
from targets.base import Artifact, CompileJob
from targets.compile import CompileRequest, jobs_of
from targets.mnn.conversion import MODEL_FILE, convert_graph
from targets.mnn.model import WEIGHTS_SUFFIX, read_model
from targets.mnn.precisions import PRECISIONS
from targets.mnn.target import MnnTarget
from targets.mnn.toolchain import Mnn

CASES = [
    *(
        (component, precision)
        for component in ("text_encoder", "vae_decoder")
        for precision in ("f32", "f16", "w8", "w8-b32", "w8-channel", "w4", "w4-b32", "w4-channel")
    ),
    *(
        pytest.param("unet", precision, marks=pytest.mark.slow)
        for precision in ("f32", "f16", "w8", "w4")
    ),
]


def job_of(bundle: Bundle, component: str, precision: str) -> CompileJob:
    request = CompileRequest(
        bundle.folder,
        "mnn",
        (Size(64, 64),),
        precision={component: precision},
        components=(component,),
    )
    ((job,),) = jobs_of(request, bundle, MnnTarget()).values()
    return job


def bound(job: CompileJob, weights: WeightSource, folder: Path) -> Artifact:
    target = MnnTarget()
    skeleton = target.compile(job, weights, silent)
    (artifact,) = target.bind([skeleton], weights, folder, silent)
    assert artifact.how == "bound"
    return artifact


def converted(mnn: Mnn, job: CompileJob, options: str, weights: Path, folder: Path) -> Path:
    """What MNN's converter makes of the graph and its weights."""
    folder.mkdir()
    precision = PRECISIONS[options]
    graph = pipelines.mnn(None, halves=precision.bits == 16).run(read_graph(job.graph)).model
    convert_graph(mnn, job, precision, graph, weights, folder, silent)
    return folder / MODEL_FILE


def contents(model: Path) -> tuple[bytes, bytes]:
    """Both files; the model's identity, which is a random number, left out."""
    content = bytearray(model.read_bytes())
    uuid = read_model(model).uuid
    content[uuid.offset : uuid.end] = bytes(uuid.nbytes)
    return bytes(content), model.with_name(model.name + WEIGHTS_SUFFIX).read_bytes()


@pytest.mark.parametrize(("component", "precision"), CASES)
def test_bound_files_are_those_that_converting_with_the_weights_gives(
    component: str, precision: str, mnn: Mnn, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    """The weights come from a float16 checkpoint, so that half precision has nothing to round."""
    job = job_of(diffusers_bundle, component, precision)
    weights = diffusers_bundle.weights(component)
    artifact = bound(job, weights, tmp_path / "bound")
    assert weights.file is not None
    theirs = converted(mnn, job, precision, weights.file, tmp_path / "whole")
    assert contents(tmp_path / "bound" / artifact.path) == contents(theirs)


class Changed:
    """Other weights for the same graph: those of a bundle, some of them multiplied."""

    file = None

    def __init__(self, weights: BundleWeights, factor: float, names: Sequence[str]) -> None:
        self._weights, self._factor, self._changed = weights, np.float32(factor), names
        self.key = f"{weights.key} {factor} {names}"
        self.tensor_keys = {n: f"{n} {factor if n in names else ''}" for n in weights.names()}

    def names(self) -> Sequence[str]:
        return self._weights.names()

    def spec(self, name: str) -> TensorSpec:
        return self._weights.spec(name)

    def read(self, name: str) -> Array:
        values = self._weights.read(name)
        return np.asarray(values * self._factor) if name in self._changed else values

    def forget(self, name: str) -> None:
        del name


@pytest.mark.parametrize("factor", [1.001, -0.0])
def test_half_precision_is_what_the_converter_makes_of_rounded_weights(
    factor: float, mnn: Mnn, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    """It cuts off itself, which is twice as wrong. Zeros of filters lose their sign."""
    job = job_of(diffusers_bundle, "vae_decoder", "f16")
    own = diffusers_bundle.weights("vae_decoder")
    weights = Changed(own, factor, [n for n in own.names() if factor or n.endswith(FILTER)])
    artifact = bound(job, weights, tmp_path / "bound")
    places = weight_places(read_graph(job.graph))
    file = tmp_path / "model.onnx.data"
    with file.open("wb") as opened:
        for name, place in places.items():
            opened.seek(place.offset)
            values = weights.read(name)
            # Biases are kept in float32.
            kept = values if name.endswith("bias") and "norm" not in name else half(values)
            opened.write(kept.tobytes())
    theirs = converted(mnn, job, "f16", file, tmp_path / "whole")
    assert contents(tmp_path / "bound" / artifact.path) == contents(theirs)


FILTER = "resnets.0.conv1.weight"


def half(values: Array) -> Array:
    return values.astype(np.float16).astype(np.float32)


def test_hqq_differs_from_the_converter_in_the_last_bits(
    mnn: Mnn, diffusers_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sums depend on the processor; see `targets.mnn.hqq`."""
    job = job_of(diffusers_bundle, "text_encoder", "w8-hqq")
    weights = diffusers_bundle.weights("text_encoder")
    artifact = bound(job, weights, tmp_path / "bound")
    options = (*PRECISIONS["w8-hqq"].options, "--hqq")
    monkeypatch.setattr(type(PRECISIONS["w8-hqq"]), "options", options)
    assert weights.file is not None
    theirs = converted(mnn, job, "w8-hqq", weights.file, tmp_path / "whole")
    model = read_model(theirs)
    (ours_graph, ours), (theirs_graph, there) = (
        contents(tmp_path / "bound" / artifact.path),
        contents(theirs),
    )
    assert ours_graph == theirs_graph
    codes = differing = 0
    for parameter in model.parameters:
        at, group = parameter.at, parameter.encoding.group
        mine, other = (np.frombuffer(c[at.offset : at.end], np.uint8) for c in (ours, there))
        if not group:
            assert np.array_equal(mine, other)
            continue
        count = int(np.prod(parameter.shape))
        scales = 8 * (count // group)
        codes += count
        apart = np.abs(
            mine[-scales - count : -scales].astype(int) - other[-scales - count : -scales]
        )
        assert apart.max(initial=0) <= 1
        differing += int((apart != 0).sum())
        # Least values may be shifted by what the codes were.
        assert np.allclose(mine[-scales:].view("<f4"), other[-scales:].view("<f4"), atol=1e-4)
    assert codes > 90_000
    assert 0 <= differing < codes * 2e-3


def test_the_same_again_writes_nothing_and_a_change_writes_that(
    mnn: Mnn, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    del mnn
    job = job_of(diffusers_bundle, "vae_decoder", "w8")
    own = diffusers_bundle.weights("vae_decoder")
    weights = Changed(own, 1.0, ())
    artifact = bound(job, weights, tmp_path / "one")
    path = tmp_path / "one" / artifact.path
    before = path.stat()
    again = bound(job, weights, tmp_path / "one")
    assert again.reused
    assert path.stat() == before
    changed = Changed(own, 2.0, ["decoder.conv_in.weight", "decoder.conv_norm_out.bias"])
    bound(job, changed, tmp_path / "one")
    bound(job, changed, tmp_path / "two")
    mine, fresh = (contents(tmp_path / name / artifact.path) for name in ("one", "two"))
    assert mine == fresh
    uuids = {(tmp_path / name / artifact.path).read_bytes() for name in ("one", "two")}
    assert len(uuids) == 1  # what the model is called depends on what it is made of


def test_other_precisions_of_one_format_are_other_artifacts(
    mnn: Mnn, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    del mnn
    weights = diffusers_bundle.weights("text_encoder")
    keys = {}
    for precision in ("w8", "w8a8", "w8-hqq"):
        job = job_of(diffusers_bundle, "text_encoder", precision)
        keys[precision] = replace(bound(job, weights, tmp_path), why="").key
    assert len(set(keys.values())) == 3
