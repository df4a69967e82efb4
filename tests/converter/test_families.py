"""The family's table against the modules that diffusers and transformers build."""

import pytest

from converter.architecture import Architecture
from converter.components import COMPONENTS, rules
from converter.modules import build_module
from converter.template import SD15
from examples.small_models import SMALL


@pytest.mark.parametrize("architecture", [SD15, SMALL], ids=["full", "small"])
@pytest.mark.parametrize("component", COMPONENTS)
def test_names_and_shapes_are_those_of_the_module(
    component: str, architecture: Architecture
) -> None:
    module = build_module(component, architecture, residual_ports=True)
    table = rules(component, architecture)
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    assert {rule.name: rule.shape for rule in table} == wanted
    assert len({rule.source for rule in table}) == len(table)


def test_architectures_survive_json() -> None:
    assert Architecture.from_json(SD15.to_json()) == SD15
    partial = Architecture("sd15", SD15.unet, None, None)
    assert Architecture.from_json(partial.to_json()) == partial
