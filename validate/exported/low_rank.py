"""LoRAs read once more, by nothing of `converter.adapters`: which modules they change, and how.

Only what the name stands for, which is what nearly all files hold: a module's change is
alpha / rank * up @ down (https://arxiv.org/abs/2106.09685), up and down flattened to matrices.
Of any other kind the exporter's own formula has to be used, and the report says so.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converter.checkpoint import Checkpoint
from converter.weights import Array

FACTOR = re.compile(
    r"(?P<module>.+?)[._]"
    r"(?:lora_|lora\.|lora_linear_layer\.)(?P<factor>down|up|A|B)(?:\.default)?\.weight$"
)
"""How keys end that hold a factor, as kohya, PEFT and diffusers (old and new) write them."""

ALPHA = ".alpha"

BEGINNINGS = {
    "unet": ("lora_unet_", "base_model_model_", "unet_", "diffusion_model_", ""),
    "text_encoder": ("lora_te_", "lora_te1_", "base_model_model_", "text_encoder_", ""),
    "text_encoder_2": ("lora_te2_", "base_model_model_", "text_encoder_2_", ""),
}
"""How trainers begin the names of a component's modules, every dot an underscore."""


@dataclass(frozen=True)
class LowRank:
    """The factors' keys of one module. `alpha` is that of the file, where it has one."""

    down: str
    up: str
    alpha: str | None

    def change(self, file: Checkpoint, strength: float) -> Array:
        """The change as a float64 matrix; `strength` stands for alpha / rank without an alpha."""
        down, up = (_matrix(file, key) for key in (self.down, self.up))
        if self.alpha is not None:
            strength = float(file.read(self.alpha).astype(np.float64).reshape(-1)[0]) / len(down)
        return strength * (up @ down)


def low_rank_modules(file: Checkpoint) -> dict[str, LowRank]:
    """A module's name in the file, every dot an underscore -> its factors."""
    factors: dict[str, dict[str, str]] = {}
    alphas = {key.removesuffix(ALPHA): key for key in file.tensors if key.endswith(ALPHA)}
    for key in file.tensors:
        found = FACTOR.match(key)
        if found is not None:
            factor = {"A": "down", "B": "up"}.get(found["factor"], found["factor"])
            module = found["module"].replace(".processor.", ".")
            factors.setdefault(module, {})[factor] = key
    return {
        _flat(module): LowRank(keys["down"], keys["up"], alphas.get(module))
        for module, keys in factors.items()
        if keys.keys() == {"down", "up"}
    }


def module_of(
    component: str, tensor: str, source: str, modules: Mapping[str, LowRank]
) -> LowRank | None:
    """The factors for a tensor, which the module and the checkpoint (`source`) name differently."""
    names = [_flat(name.removesuffix(".weight")) for name in (tensor, *_inside(source))]
    if component.startswith("text_encoder"):
        names = [spelling for name in names for spelling in (f"text_model_{name}", name)]
    for beginning in BEGINNINGS.get(component, ()):
        for name in names:
            if beginning + name in modules:
                return modules[beginning + name]
    return None


def _inside(source: str) -> list[str]:
    """A checkpoint's name without what stands before the network's own."""
    prefix = "model.diffusion_model."
    return [source.removeprefix(prefix)] if source.startswith(prefix) else []


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _matrix(file: Checkpoint, key: str) -> Array:
    values = file.read(key).astype(np.float64)
    return values.reshape(values.shape[0], -1)
