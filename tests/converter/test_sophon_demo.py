"""Profile sophon-demo: what Sophgo's demos of SD1.5 and SDXL bind, and under which names."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch

from converter.bundle import Bundle
from converter.errors import InputError
from converter.export import ExportRequest, export
from converter.families.controlnet import copied_part
from converter.profiles import get_profile
from converter.sizes import Size
from converter.weights import Array
from examples.random_checkpoint import write_checkpoint
from examples.small_models import MODELS
from targets.compile import CompileRequest, jobs_of
from targets.registry import get_target
from tests.conftest import SmallModel
from tests.converter import reference_models as references

DEMO = get_profile("sophon-demo")
SD15, SDXL = MODELS["sd15-full"], MODELS["sdxl-full"]
assert SD15.unet is not None
WITH_CONTROLNET = replace(SD15, controlnets=(copied_part(SD15.unet),))


def test_sdxl_at_1024_has_the_documented_ports() -> None:
    architecture, size = DEMO.presented(SDXL), Size(1024, 1024)
    unet = DEMO.interface("unet", architecture)
    assert list(unet.input_shapes(DEMO.batch, size).values()) == [
        (2, 4, 128, 128), (1,), (2, 77, 2048), (2, 1280), (2, 6),
    ]  # fmt: skip
    assert {port.dtype for port in unet.inputs} == {"float32"}
    for component, pooled, width in (
        ("text_encoder", (1, 77, 768), 768),
        ("text_encoder_2", (1, 1280), 1280),
    ):
        text = DEMO.interface(component, architecture)
        assert [(p.dtype, p.at(1, None)) for p in text.inputs] == [("int32", (1, 77))]
        assert list(text.output_shapes(1, None).values()) == [pooled, (1, 77, width)]


def test_sd15_takes_residuals_where_there_is_a_controlnet() -> None:
    plain = [port.name for port in DEMO.interface("unet", SD15).inputs]
    assert plain == ["sample", "timestep", "encoder_hidden_states"]
    inputs = DEMO.interface("unet", WITH_CONTROLNET).input_shapes(2, Size(512, 512))
    assert list(inputs.values())[3:6] == [(2, 1280, 8, 8), (2, 320, 64, 64), (2, 320, 64, 64)]
    assert len(inputs) == 16
    controlnet = DEMO.interface("controlnet", WITH_CONTROLNET)
    assert list(controlnet.input_shapes(2, Size(512, 512)).values()) == [
        (2, 4, 64, 64), (1,), (2, 77, 768), (2, 3, 512, 512),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "files"),
    [
        (SD15, ("singlize/text_encoder_1684x_f32", "singlize/unet_1684x_f16")),
        (WITH_CONTROLNET, ("multilize/text_encoder_1684x_f32", "multilize/unet_multize")),
        (SDXL, ("text_encoder_1_1684x_f32", "unet_base_1684x_bf16")),
    ],
)
def test_files_have_the_demos_names(architecture: Any, files: tuple[str, str]) -> None:
    assert tuple(DEMO.file(c, architecture) for c in ("text_encoder", "unet")) == files
    assert DEMO.file("controlnet", WITH_CONTROLNET) == "controlnets/controlnet_fp16"
    assert DEMO.file("controlnet_2", WITH_CONTROLNET) == "controlnets/controlnet_fp16_2"


def test_what_the_demos_do_not_run_is_refused() -> None:
    with pytest.raises(InputError, match=r"for sd15 and sdxl only .* this is sd2: add --profile"):
        DEMO.check(MODELS["sd2"])
    unet = SDXL.unet
    assert unet is not None
    with pytest.raises(InputError, match="no ControlNet for sdxl"):
        DEMO.check(replace(SDXL, controlnets=(copied_part(unet),)))


def test_batch_and_precisions_are_the_demos(small_model: SmallModel, tmp_path: Path) -> None:
    request = ExportRequest(small_model.checkpoint, tmp_path, profile="sophon-demo")
    bundle = export(request)
    assert bundle.batch == 2
    assert request.command()[-4:] == ["--profile", "sophon-demo", "-b", "2"]
    target = get_target("bm1684x")
    asked = CompileRequest(bundle.folder, "bm1684x", (Size(64, 64),))
    jobs = {name: mine[0] for name, mine in jobs_of(asked, bundle, target).items()}
    assert {name: (job.precision, job.batch, job.file) for name, job in jobs.items()} == {
        "text_encoder": ("f32", 1, "singlize/text_encoder_1684x_f32"),
        "unet": ("bf16", 2, "singlize/unet_1684x_f16"),
        "vae_encoder": ("bf16", 1, "singlize/vae_encoder_1684x_f16"),
        "vae_decoder": ("bf16", 1, "singlize/vae_decoder_1684x_f16"),
    }
    overridden = replace(asked, precision={"unet": "f16"}, batch=1)
    job = jobs_of(overridden, bundle, target)["unet"][0]
    assert (job.precision, job.batch) == ("f16", 1)
    # ONNX Runtime has float32 alone, and another chip may lack a precision too.
    elsewhere = jobs_of(replace(asked, target="onnxruntime"), bundle, get_target("onnxruntime"))
    assert {mine[0].precision for mine in elsewhere.values()} == {"f32"}
    smaller = jobs_of(replace(asked, target="bm1684x2"), bundle, get_target("bm1684x2"))
    assert smaller["text_encoder"][0].precision == "f16"


def outputs(bundle: Bundle, component: str, tokens: torch.Tensor) -> list[Array]:
    record = bundle.components[component]
    session = onnxruntime.InferenceSession(bundle.folder / record.graph)
    given = {record.interface.inputs[0].name: tokens.numpy().astype(np.int32)}
    return list(session.run([port.name for port in record.interface.outputs], given))


def test_text_encoders_of_sdxl_give_what_the_demo_exported(tmp_path: Path) -> None:
    checkpoint = tmp_path / "sdxl.safetensors"
    write_checkpoint(checkpoint, MODELS["sdxl"])
    file = safetensors.torch.load_file(checkpoint)
    bundle = export(
        ExportRequest(
            checkpoint,
            tmp_path / "out",
            profile="sophon-demo",
            components=("text_encoder", "text_encoder_2"),
        )
    )
    tokens = torch.full((1, 77), 49407)
    tokens[0, :8] = torch.tensor([49406, 320, 1125, 539, 320, 2368, 530, 256])
    one = references.clip_l(file, layers=3, prefix="conditioner.embedders.0.transformer.")
    two = references.open_clip(file, "conditioner.embedders.1.model.", layers=3, projected=True)
    with torch.inference_mode():
        first, second = (m(input_ids=tokens, output_hidden_states=True) for m in (one, two))
    wanted = {
        "text_encoder": [first.last_hidden_state, first.hidden_states[-2]],
        "text_encoder_2": [second.text_embeds, second.hidden_states[-2]],
    }
    for component, values in wanted.items():
        for mine, value in zip(outputs(bundle, component, tokens), values, strict=True):
            np.testing.assert_allclose(mine, value.numpy(), rtol=0, atol=1e-4)
