"""The families' tables against the modules that diffusers and transformers build."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.architecture import Architecture
from converter.checkpoint import TensorInfo
from converter.components import available, complete, rules
from converter.errors import InputError
from converter.families.detect import checkpoint_family
from converter.families.published import SD15
from converter.families.registry import FAMILIES
from converter.families.rules import TensorRule
from converter.inspection import infer_architecture, tensor_problems
from converter.modules import build_module
from examples.small_models import MODELS

PARTS = [(name, component) for name, model in MODELS.items() for component in available(model)]


@pytest.mark.parametrize(("name", "component"), PARTS)
def test_names_and_shapes_are_those_of_the_module(name: str, component: str) -> None:
    module = build_module(component, MODELS[name], residual_ports=True)
    table = rules(component, MODELS[name])
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    assert {rule.name: rule.shape for rule in table if rule.needed} == wanted
    assert len({(rule.source, rule.part) for rule in table}) == len(table)


def test_a_unet_that_diffusers_cannot_be_is_refused() -> None:
    odd = MODELS["koala-1b"]
    assert odd.unet is not None
    odd = replace(odd, unet=replace(odd.unet, middle_depth=3))
    with pytest.raises(InputError, match="3 transformer layers in its middle block and 6"):
        build_module("unet", odd, residual_ports=False)


def header(architecture: Architecture) -> dict[str, TensorInfo]:
    """What the file of such a model says in its header."""
    return {
        rule.source: TensorInfo("F16", rule.stored_shape, 0, 0)
        for component in available(architecture)
        for rule in rules(component, architecture)
    }


HEADERS = {name: header(MODELS[name]) for name in ("sd15", "sd2", "sdxl", "sdxl-refiner")}


@pytest.mark.parametrize("name", MODELS)
def test_every_hyper_parameter_is_read_off_names_and_shapes(name: str) -> None:
    tensors = header(MODELS[name])
    assert checkpoint_family(tensors) == MODELS[name].family
    assert FAMILIES[MODELS[name].family].infer(tensors) == MODELS[name]


@pytest.mark.parametrize("name", ["sd15", "sd2", "sdxl", "sdxl-refiner"])
def test_the_family_of_a_file_without_a_unet_is_told_by_its_text_encoders(name: str) -> None:
    tensors = {n: i for n, i in header(MODELS[name]).items() if "diffusion_model" not in n}
    assert checkpoint_family(tensors) == name


def test_layers_that_no_output_needs_are_known_and_not_needed() -> None:
    table = rules("text_encoder", MODELS["sdxl"])
    left = {rule.name for rule in table if not rule.needed}
    assert "final_layer_norm.weight" in left
    assert "encoder.layers.2.mlp.fc1.weight" in left
    assert not any(name.startswith("encoder.layers.1.") for name in left)
    assert all(rule.needed for rule in rules("text_encoder_2", MODELS["sdxl"]))


def test_a_fused_tensor_is_cut_and_a_transposed_one_turned() -> None:
    stored = np.arange(24, dtype=np.float32).reshape(6, 4)
    middle = TensorRule("k", "qkv", (2, 4), part=(1, 3))
    assert middle.accepts((6, 4)) and not middle.accepts((2, 4))
    assert (middle.take(stored) == stored[2:4]).all()
    turned = TensorRule("p", "p", (4, 6), transposed=True)
    assert turned.accepts((6, 4)) and not turned.accepts((4, 6))
    assert (turned.take(stored) == stored.T).all()


def test_an_openclip_tower_in_the_names_of_transformers_is_the_same() -> None:
    text = MODELS["sdxl"].text_encoder_2
    assert text is not None
    usual, other = FAMILIES["sdxl"].text_encoders["text_encoder_2"]
    tensors = {n: i for n, i in header(MODELS["sdxl"]).items() if usual.prefixes[0] not in n}
    for rule in other.rules(text, other.prefixes[0]):
        tensors[rule.source] = TensorInfo("F16", rule.stored_shape, 0, 0)
    assert "conditioner.embedders.1.transformer.text_projection.weight" in tensors
    assert checkpoint_family(tensors) == "sdxl"
    assert FAMILIES["sdxl"].infer(tensors) == MODELS["sdxl"]
    names = [
        {(rule.name, rule.shape) for rule in rules("text_encoder_2", MODELS["sdxl"], file)}
        for file in ((), tensors)
    ]
    assert names[0] == names[1]


@given(st.data())
def test_shapes_of_any_rank_are_looked_at_without_a_traceback(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["sd15", "sd2", "sdxl", "sdxl-refiner"]))
    tensors = dict(HEADERS[name])
    for source in data.draw(st.lists(st.sampled_from(sorted(tensors)), max_size=5)):
        shape = tuple(data.draw(st.lists(st.integers(0, 9), max_size=4)))
        tensors[source] = TensorInfo("F16", shape, 0, 0)
    for source in data.draw(st.lists(st.sampled_from(sorted(tensors)), max_size=5)):
        tensors.pop(source, None)
    family = checkpoint_family(tensors)
    tensor_problems(tensors, infer_architecture(tensors, family))


def test_a_family_is_complete_with_its_own_components() -> None:
    assert complete(MODELS["sdxl-refiner"]) == (
        "text_encoder_2", "unet", "vae_encoder", "vae_decoder",
    )  # fmt: skip
    assert "text_encoder_2" not in complete(SD15)


@pytest.mark.parametrize("name", MODELS)
def test_architectures_survive_json(name: str) -> None:
    assert Architecture.from_json(MODELS[name].to_json()) == MODELS[name]
    partial = Architecture(MODELS[name].family, MODELS[name].unet, None, None)
    assert Architecture.from_json(partial.to_json()) == partial
