"""Binding weights to a skeleton against compiling with them: the same file, byte for byte."""

from pathlib import Path

import pytest

from benchmarks.sophgo_bytes import bound, same_but_time, whole
from converter.bundle import Bundle
from converter.progress import silent
from converter.sizes import Size
from targets.compile import CompileRequest, jobs_of
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


@pytest.mark.parametrize(("chip", "component", "precision"), CASES)
def test_a_bound_file_is_the_one_that_compiling_with_its_weights_gives(
    chip: str,
    component: str,
    precision: str,
    tpu_mlir: TpuMlir,
    shallow_bundle: Bundle,
    tmp_path: Path,
) -> None:
    """All but `Model.time`, when the compiler finished; the check code is that of the weights."""
    request = CompileRequest(
        shallow_bundle.folder,
        chip,
        (Size(64, 64),),
        precision={component: precision},
        components=(component,),
    )
    target = SophgoTarget(chip)
    ((job,),) = jobs_of(request, shallow_bundle, target).values()
    weights = shallow_bundle.weights(component)
    ours = bound(target, job, weights, tmp_path / "bound", silent)
    theirs = whole(target, job, weights, tmp_path / "whole", silent)
    assert same_but_time(ours, theirs)
