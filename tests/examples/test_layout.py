"""What was trained is what the files say: names, shapes, and the LoRA's effect once merged."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from converter.adapters.choice import AdapterChoice
from converter.export import ExportRequest, export
from converter.inspection import inspect
from converter.modules import load_module
from examples.mini.consistency import LAYERS, consistency
from examples.mini.controlnet import controlnet, residuals
from examples.mini.denoiser import ALPHAS, Denoiser
from examples.mini.layout import write_checkpoint, write_controlnet, write_lora
from examples.mini.lora import STYLE_LAYERS, LowRankChange
from examples.mini.modules import MINI, fresh


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    made = Denoiser.fresh(3)
    for _, module in made.parts():
        module.requires_grad_(requires_grad=False)
    return made


@pytest.fixture(scope="module")
def checkpoint(denoiser: Denoiser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mini") / "checkpoint.safetensors"
    parts = {
        "text_encoder": denoiser.text,
        "unet": denoiser.unet,
        "vae_encoder": fresh("vae_encoder", 4),
        "vae_decoder": fresh("vae_decoder", 5),
    }
    write_checkpoint(path, {name: module.state_dict() for name, module in parts.items()})
    return path


def test_the_checkpoint_is_recognised_with_its_whole_architecture(checkpoint: Path) -> None:
    found = inspect(checkpoint).to_json()
    assert found["family"] == "sd15"
    assert found["architecture"] == MINI.to_json()
    assert set(load_file(checkpoint)) >= {
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
        "first_stage_model.encoder.mid.attn_1.q.weight",
        "cond_stage_model.transformer.text_model.final_layer_norm.weight",
    }
    assert load_file(checkpoint)["first_stage_model.encoder.mid.attn_1.q.weight"].dim() == 4


@pytest.mark.parametrize("layers", [STYLE_LAYERS, LAYERS], ids=["style", "lcm"])
def test_the_merged_lora_computes_what_was_trained(
    layers: dict[str, tuple[str, ...]], checkpoint: Path, denoiser: Denoiser, tmp_path: Path
) -> None:
    original = Denoiser.loaded({n: p.detach() for n, p in denoiser.parameters().items()})
    # Both sides start from the same half-precision numbers.
    for _, module in original.parts():
        module.half().float()
    change = LowRankChange(original, layers, rank=4, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in change.parameters().items():
            if name.endswith(".up"):
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
            value.copy_(value.half().float())
    write_lora(tmp_path / "lora.safetensors", dict(change.parameters()))
    request = ExportRequest(
        checkpoint, tmp_path / "bundle", (AdapterChoice(tmp_path / "lora.safetensors"),)
    )
    bundle = export(request)
    (adapter,) = bundle.adapters
    assert adapter["ledger"]["unused"] == {} and adapter["rank"] == [4]
    tokens = torch.randint(0, 49408, (1, 77), generator=generator)
    latent = torch.randn((1, 4, 8, 8), generator=generator)
    timestep = torch.tensor([500])
    with torch.no_grad():
        context = original.context(tokens)
        wanted = original.noise(latent, timestep, context)
        with change.off():
            plain = original.noise(latent, timestep, original.context(tokens))
        merged_context = load_module(bundle, "text_encoder")(tokens)[0]
        merged = load_module(bundle, "unet")(latent, timestep.float(), merged_context)
    assert torch.allclose(merged, wanted, atol=2e-4)
    assert not torch.allclose(merged, plain, atol=2e-2)


def test_the_exported_controlnet_computes_what_was_trained(
    checkpoint: Path, denoiser: Denoiser, tmp_path: Path
) -> None:
    net = controlnet(denoiser.unet, seed=0).half().float()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.01 * torch.ones_like(parameter)).copy_(parameter.half().float())
    path = tmp_path / "controlnet.safetensors"
    write_controlnet(path, net.state_dict())
    names = set(load_file(path))
    assert {"control_model.zero_convs.11.0.weight", "control_model.middle_block_out.0.bias"} < names
    assert "control_model.input_hint_block.14.weight" in names
    inputs = torch.randn(1, 4, 8, 8), torch.tensor([7.0]), torch.randn(1, 77, 64)
    hint = torch.rand(1, 3, 64, 64)
    bundle = export(ExportRequest(checkpoint, tmp_path / "bundle", parts={"controlnet": path}))
    ports = bundle.components["controlnet"].interface
    assert [p.name for p in ports.inputs] == [
        "sample", "encoder_hidden_states", "image", "timestep",
    ]  # fmt: skip
    latent, timestep, context = inputs
    with torch.no_grad():
        middle, *down = residuals(net, *inputs, hint)
        found = load_module(bundle, "controlnet")(latent, context, hint, timestep)
    assert len(found) == 13
    for mine, tensor in zip(found, [*down, middle], strict=True):
        assert torch.allclose(mine, tensor, atol=1e-5)


def test_the_consistency_function_is_the_identity_at_zero_and_denoises_later() -> None:
    latent, noise = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2)
    assert torch.allclose(consistency(latent, noise, torch.zeros(2, dtype=torch.long)), latent)
    t = torch.full((2,), 800)
    noisy = ALPHAS[800].sqrt() * latent + (1 - ALPHAS[800]).sqrt() * noise
    assert torch.allclose(consistency(noisy, noise, t), latent, atol=1e-4)


def test_the_noise_schedule_is_diffusers() -> None:
    from runtime.schedulers import Scheduler

    scheduler = Scheduler("ddim", 1, "epsilon", 0)
    assert torch.allclose(ALPHAS, scheduler._scheduler.alphas_cumprod, atol=1e-6)
