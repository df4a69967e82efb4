"""Every family: weights and outputs against modules that diffusers' own converters filled.

Weights must be equal bit for bit, and ONNX Runtime must agree with torch in fp32 within 1e-4
(text encoders, UNet) and 3e-4 (VAE) at two sizes, one of them not square and with odd latents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch

from converter.bundle import Bundle
from converter.components import available, rules
from converter.containers.opening import open_checkpoint
from converter.export import ExportRequest, export
from converter.inspection import inspect
from converter.sizes import Size
from converter.weights import Array
from examples.random_checkpoint import write_checkpoint
from examples.small_models import MODELS
from tests.converter import reference_models as references

pytestmark = pytest.mark.slow

SIZES = (Size(96, 96), Size(104, 72))
NEAR = 1e-4
NEAR_VAE = 3e-4
BIG_G = {"sdxl": "conditioner.embedders.1.model.", "sdxl-refiner": "conditioner.embedders.0.model."}


MAIN = ("sd15", "sd2", "sdxl", "sdxl-refiner")
RUN = tuple(references.UNETS)


class Model:
    """A small model's file and what diffusers makes of it."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.architecture = MODELS[name]
        write_checkpoint(path, self.architecture)
        self.file: Mapping[str, torch.Tensor] = safetensors.torch.load_file(path)

    def module(self, component: str) -> Any:
        family = self.architecture.family
        if component == "unet":
            return references.unet(self.name, self.file)
        if component.startswith("vae"):
            return references.vae(self.file)
        if component == "text_encoder_2":
            return references.open_clip(self.file, BIG_G[family], layers=3, projected=True)
        if family == "sd2":
            prefix = "cond_stage_model.model."
            return references.open_clip(self.file, prefix, layers=2, projected=False)
        if family == "sd15":
            return references.clip_l(self.file, layers=2, prefix=None)
        prefix = "conditioner.embedders.0.transformer."
        return references.clip_l(self.file, layers=3, prefix=prefix)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """Each is written when it is first asked for."""
    folder = tmp_path_factory.mktemp("models")

    class Models(dict[str, Model]):
        def __missing__(self, name: str) -> Model:
            self[name] = Model(name, folder / f"{name}.safetensors")
            return self[name]

    return Models()


UNETS = [(name, "unet") for name in references.UNETS]
OTHERS = [
    (name, component)
    for name in MAIN
    for component in available(MODELS[name])
    if component != "unet"
]


@pytest.mark.parametrize(("name", "component"), [*UNETS, *OTHERS])
def test_every_tensor_is_the_one_that_diffusers_takes(
    models: dict[str, Model], name: str, component: str
) -> None:
    state = models[name].module(component).state_dict()
    state = {n.removeprefix("text_model."): tensor for n, tensor in state.items()}
    file = open_checkpoint(models[name].path)
    table = rules(component, models[name].architecture, file.tensors)
    for rule in table:
        mine = rule.take(file.read(rule.source)).astype(np.float32)
        if rule.needed:
            wanted = state[rule.name].numpy()
            assert mine.shape == wanted.shape
            assert (mine == wanted).all(), rule.name
    halves = {"vae_encoder": ("encoder.", "quant_"), "vae_decoder": ("decoder.", "post_quant_")}
    owned = {n for n in state if n.startswith(halves.get(component, ""))}
    assert owned <= {rule.name for rule in table}


def run(bundle: Bundle, component: str, inputs: Sequence[torch.Tensor]) -> list[Array]:
    record = bundle.components[component]
    session = onnxruntime.InferenceSession(bundle.folder / record.graph)
    names = [port.name for port in record.interface.inputs]
    given = {n: t.numpy() for n, t in zip(names, inputs, strict=True)}
    return session.run(None, given)  # type: ignore[no-any-return]


def assert_near(found: Sequence[Array], wanted: Sequence[torch.Tensor], most: float) -> None:
    for mine, tensor in zip(found, wanted, strict=True):
        assert mine.shape == tuple(tensor.shape)
        assert tensor.std() > 0.01  # a network that gives nothing would agree with anything
        assert np.abs(mine - tensor.numpy()).max() <= most


@pytest.fixture(scope="module")
def bundles(
    models: dict[str, Model], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Bundle]:
    class Bundles(dict[str, Bundle]):
        def __missing__(self, name: str) -> Bundle:
            output = tmp_path_factory.mktemp(name)
            components = None if name in MAIN else ("unet",)
            request = ExportRequest(models[name].path, output, profile="diffusers")
            self[name] = export(replace(request, components=components))
            return self[name]

    return Bundles()


def unet_inputs(name: str, size: Size) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """Inputs in the order of the ports, and diffusers' keyword arguments for those behind three."""
    arch = MODELS[name].unet
    assert arch is not None
    noise = torch.Generator().manual_seed(size.width)
    sample = torch.randn(2, arch.in_channels, size.height // 8, size.width // 8, generator=noise)
    context = torch.randn(2, 77, arch.context_dim, generator=noise)
    inputs = [sample, torch.tensor([501.0]), context]
    added: dict[str, Any] = {}
    if arch.timestep_cond_dim:
        added["timestep_cond"] = torch.randn(2, arch.timestep_cond_dim, generator=noise)
        inputs.append(added["timestep_cond"])
    if arch.addition_dim:
        pooled = torch.randn(2, arch.pooled_dim, generator=noise)
        time_ids = torch.randint(0, 1024, (2, arch.time_ids), generator=noise).float()
        added["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": time_ids}
        inputs += [pooled, time_ids]
    return inputs, added


@pytest.mark.parametrize("name", RUN)
def test_the_unet_computes_what_diffusers_computes(
    models: dict[str, Model], bundles: dict[str, Bundle], name: str
) -> None:
    module = models[name].module("unet")
    for size in SIZES:
        inputs, added = unet_inputs(name, size)
        with torch.inference_mode():
            wanted = module(*inputs[:3], **added).sample
        assert_near(run(bundles[name], "unet", inputs), [wanted], NEAR)


@pytest.mark.parametrize("name", MAIN)
def test_the_text_encoders_give_what_the_pipelines_take(
    models: dict[str, Model], bundles: dict[str, Bundle], name: str
) -> None:
    tokens = torch.full((2, 77), 49407)
    tokens[:, 0] = 49406
    tokens[0, 1:8] = torch.tensor([320, 1125, 539, 320, 2368, 530, 256])
    tokens[1, 1:76] = torch.arange(1000, 1075)
    for component in (c for c in bundles[name].components if c.startswith("text")):
        module = models[name].module(component)
        with torch.inference_mode():
            out = module(input_ids=tokens, output_hidden_states=True)
        if component == "text_encoder_2":
            wanted = [out.hidden_states[-2], out.text_embeds]
        elif name == "sdxl":
            wanted = [out.hidden_states[-2]]
        else:
            wanted = [out.last_hidden_state, out.pooler_output]
        assert_near(run(bundles[name], component, [tokens]), wanted, NEAR)


@pytest.mark.parametrize("name", MAIN)
def test_the_vae_computes_what_diffusers_computes(
    models: dict[str, Model], bundles: dict[str, Bundle], name: str
) -> None:
    module = models[name].module("vae_encoder")
    for size in SIZES:
        picture = torch.rand(2, 3, size.height, size.width) * 2 - 1
        latent = torch.randn(2, 4, size.height // 8, size.width // 8)
        with torch.inference_mode():
            moments = module.encode(picture).latent_dist.parameters
            decoded = module.decode(latent).sample
        assert_near(run(bundles[name], "vae_encoder", [picture]), [moments], NEAR_VAE)
        assert_near(run(bundles[name], "vae_decoder", [latent]), [decoded], NEAR_VAE)


@pytest.mark.parametrize("name", MAIN)
def test_a_folder_that_diffusers_wrote_exports_to_the_same_bytes(
    models: dict[str, Model], bundles: dict[str, Bundle], name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    for component in bundles[name].components:
        module = models[name].module(component)
        if component.startswith("vae"):
            vae = MODELS[name].vae
            assert vae is not None
            module.register_to_config(scaling_factor=vae.scaling_factor)
        module.save_pretrained(folder / ("vae" if component.startswith("vae") else component))
    (folder / "model_index.json").write_text("{}")
    found = inspect(folder)
    assert (found.family, found.problems) == (MODELS[name].family, [])
    again = export(ExportRequest(folder, tmp_path / "bundle", profile="diffusers"))
    assert again.components.keys() == bundles[name].components.keys()
    for component, record in again.components.items():
        wanted = bundles[name].folder / bundles[name].components[component].weights
        assert (again.folder / record.weights).read_bytes() == wanted.read_bytes(), component
