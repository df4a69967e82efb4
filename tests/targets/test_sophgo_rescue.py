"""A VAE that overflows fp16 on Sophgo: where it begins is named, and five operations rescue it."""

from pathlib import Path

import pytest

from converter.sizes import Size
from examples.mini.faults import OVERFLOWED, export_mini, overflowing_checkpoint
from targets.compile import CompileRequest, compile_bundle
from targets.manifest import Manifest
from targets.sophgo.target import SophgoTarget
from targets.sophgo.toolchain import TpuMlir
from validate.base import Level, Link, Verdict
from validate.validate import ValidateRequest, validate


@pytest.mark.slow
def test_an_overflow_is_found_and_rescued(
    tpu_mlir: TpuMlir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the compiler's interpreter alone: the emulator would take minutes."""
    monkeypatch.setattr(SophgoTarget, "run_seconds", lambda *_: 1e6)
    bundle = export_mini(tmp_path / "bundle", overflowing_checkpoint(tmp_path / "vae.safetensors"))
    artifacts = tmp_path / "artifacts"
    compile_bundle(
        CompileRequest(
            bundle.folder,
            "bm1684x",
            (Size(64, 64),),
            artifacts,
            precision={"vae_decoder": "f16"},
            components=("vae_decoder",),
        )
    )
    before = validate(ValidateRequest(artifacts, levels=(Level.COMPONENT, Level.LAYER)))
    wrong = next(r for r in before.results if r.level == Level.COMPONENT)
    assert (wrong.verdict, wrong.worst.link) == (Verdict.FAIL, Link.LOWERED)
    assert "are NaN or Inf" in wrong.sentence
    assert f"parts from torch at {OVERFLOWED} (Conv2d)" in wrong.blame
    assert "the exported graph agrees with torch, so the target is to blame" in wrong.blame
    report = validate(ValidateRequest(artifacts, levels=(Level.COMPONENT,), rescue=True))
    (repair,) = report.repairs
    assert repair.table is not None, repair.sentence
    # The planted one with the norm behind it, and the norms whose sums overflow at 64x64.
    assert len(repair.kept) <= 5 < repair.operations
    assert repair.psnr_after is not None and repair.psnr_after > 35
    (artifact,) = Manifest.load(artifacts).artifacts
    assert artifact.quantize_table is not None
    # What was compiled with a table is not interpreted, and here not emulated: no pass, no fail.
    assert report.verdict is Verdict.INCOMPLETE
