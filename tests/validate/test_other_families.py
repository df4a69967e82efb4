"""SDXL and SD2 through compile, validate and generate, small and real."""

from dataclasses import replace
from pathlib import Path

import pytest

from converter.errors import InputError
from converter.export import ExportRequest, export
from converter.sizes import Size
from examples.random_checkpoint import write_checkpoint
from examples.small_models import MODELS
from runtime.generate import GenerateRequest, generate
from runtime.sampling import PictureRequest
from targets.compile import CompileRequest, compile_bundle
from validate.base import Verdict
from validate.validate import ValidateRequest, validate

SIZE = Size(96, 72)
QUICK = PictureRequest("a cat", steps=1, guidance=1)


def compiled(
    name: str, folder: Path, prediction: str | None = None, profile: str = "diffusers"
) -> Path:
    checkpoint, bundle, artifacts = (folder / n for n in ("m.safetensors", "bundle", "artifacts"))
    write_checkpoint(checkpoint, MODELS[name])
    export(ExportRequest(checkpoint, bundle, profile=profile, prediction=prediction))
    compile_bundle(CompileRequest(bundle, "onnxruntime", (SIZE,), artifacts))
    return artifacts


@pytest.mark.parametrize("profile", ["diffusers", "sophon-demo"])
def test_every_component_of_sdxl_agrees_on_inputs_made_by_its_own_text_encoders(
    profile: str, tmp_path: Path
) -> None:
    artifacts = compiled("sdxl", tmp_path, profile=profile)
    report = validate(ValidateRequest(artifacts))
    assert report.verdict is Verdict.PASS
    assert len(report.results) == 5 + 5  # artifacts, exports
    assert not any("noise" in result.note for result in report.results)


def test_sd2_draws_when_it_is_known_what_it_predicts(tmp_path: Path) -> None:
    artifacts = compiled("sd2", tmp_path)
    request = GenerateRequest(artifacts, tmp_path / "p.png", QUICK)
    with pytest.raises(InputError, match="export again with --prediction"):
        generate(request)
    assert not request.output.exists()
    again = compiled("sd2", tmp_path, prediction="v_prediction")
    assert generate(replace(request, artifacts=again)).stat().st_size > 1000
