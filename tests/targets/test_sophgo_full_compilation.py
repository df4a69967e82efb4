"""Binding weights to a skeleton against compiling with them: the same file, byte for byte."""

from pathlib import Path

import pytest

from converter.bundle import Bundle
from converter.progress import silent
from converter.sizes import Size
from examples.mini.score import CONTROLLED, FILES
from targets.compile import CompileRequest, jobs_of
from targets.sophgo.bmodel.reading import read_bmodel
from targets.sophgo.chips import get_chip
from targets.sophgo.compilation import BMODEL_FILE, compile_graph
from targets.sophgo.graphs import static_graph
from targets.sophgo.target import SophgoTarget
from targets.sophgo.toolchain import TpuMlir

pytestmark = pytest.mark.slow


CASES = [
    ("bm1684x", "text_encoder", "f32"),
    *(
        ("bm1684x", component, precision)
        for component in ("text_encoder", "unet", "controlnet", "vae_encoder", "vae_decoder")
        for precision in ("f16", "bf16")
    ),
    *(
        ("bm1684x", "text_encoder", precision)
        for precision in ("w8f16", "w8bf16", "w4f16", "w4bf16")
    ),
    ("bm1684x", "unet", "w8f16"),
    *(
        (chip, "text_encoder", "f16")
        for chip in ("bm1688-2core", "cv186x", "bm1684x2", "bm1690-8core")
    ),
]
"""F32 of the larger ones would take minutes to compile and shows nothing else."""


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return CONTROLLED.export(FILES, tmp_path_factory.mktemp("miniature"))


@pytest.mark.parametrize(("chip", "component", "precision"), CASES)
def test_a_bound_file_is_the_one_that_compiling_with_its_weights_gives(
    chip: str, component: str, precision: str, tpu_mlir: TpuMlir, miniature: Bundle, tmp_path: Path
) -> None:
    """All but `Model.time`, when the compiler finished; the check code is that of the weights."""
    request = CompileRequest(
        miniature.folder,
        chip,
        (Size(64, 64),),
        precision={component: precision},
        components=(component,),
    )
    target = SophgoTarget(chip)
    ((job,),) = jobs_of(request, miniature, target).values()
    weights = miniature.weights(component)
    skeleton = target.compile(job, weights, silent)
    (artifact,) = target.bind([skeleton], weights, tmp_path / "bound", silent)
    assert artifact.how == "bound"
    whole = tmp_path / "whole"
    whole.mkdir()
    compile_graph(tpu_mlir, get_chip(chip), job, static_graph(job), weights.file, whole, silent)
    ours = (tmp_path / "bound" / artifact.path).read_bytes()
    theirs = (whole / BMODEL_FILE).read_bytes()
    finished = read_bmodel(skeleton.path / BMODEL_FILE).model.time
    again = read_bmodel(whole / BMODEL_FILE).model.time
    assert ours == theirs.replace(again.encode(), finished.encode(), 1)
