"""Adapter key spellings: a key is a module and a part; modules are found by flattened name.

Trainers write the same module as ``lora_unet_down_blocks_0_...`` (kohya, OneTrainer),
``unet.down_blocks.0.`` (diffusers, PEFT) or after the original layout
(``lora_unet_input_blocks_1_1_...``). With every dot turned into an underscore these are one name
each, without collisions, so no pattern is needed.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from converter.adapters import dora
from converter.adapters.base import Kind, Shapes
from converter.adapters.difference import WHOLE
from converter.adapters.registry import ENDINGS, KINDS
from converter.families.rules import TensorRule
from converter.families.unet import UNET_PREFIX

PREFIXES = {
    "unet": ("lora_unet_", "unet_", "diffusion_model_", ""),
    "text_encoder": (
        "lora_te_text_model_",
        "lora_te1_text_model_",
        "text_encoder_text_model_",
        "clip_l_text_model_",
        "lora_te_",
        "lora_te1_",
        "text_encoder_",
        "text_model_",
    ),
    "text_encoder_2": (
        "lora_te2_text_model_",
        "text_encoder_2_text_model_",
        "clip_g_text_model_",
        "lora_te2_",
        "text_encoder_2_",
    ),
}
"""Component that adapters can change -> how trainers begin the names of its modules."""

OLD_TEXT_NAMES = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out_0"}
"""Old diffusers named the layers of a text encoder's attention as those of a UNet's."""

PEFT = "base_model.model."
"""Before the module's name in the keys of PEFT."""
MODEL_TENSOR = re.compile(r"(?:\.base_layer|\.modules_to_save)?\.(weight|bias)$")
"""How a key of PEFT ends that is a tensor of the model itself."""
OF_PARTS = tuple(e for e in ENDINGS if e.count(".") > 1 and e.endswith((".weight", ".bias")))
"""Endings of the parts of an adapter that look like one."""

Table = Mapping[str, tuple[str, str]]
"""Spelling of a module -> (component, module name)."""


@dataclass(frozen=True)
class AdapterKey:
    """A key, split: its flattened module name, the part it holds, and of which kind (None: any)."""

    key: str
    module: str
    kind: Kind | None
    part: str


@dataclass
class ModuleKeys:
    """The keys of one module: per kind part -> key, and the parts that go with any kind."""

    kinds: dict[str, dict[str, str]] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)

    def all(self) -> list[str]:
        """Every key."""
        return [key for parts in (*self.kinds.values(), self.shared) for key in parts.values()]


@lru_cache(maxsize=1 << 16)
def split_key(key: str) -> AdapterKey | None:
    """Split a key (remembered: many ask for each); None when its ending is not known."""
    name = key.replace(PEFT, "").replace(".processor.", ".")
    name = name.replace(".default.", ".").removesuffix(".default")
    if PEFT in key and not name.endswith(OF_PARTS):
        name = MODEL_TENSOR.sub(rf"{WHOLE}\1", name)
    for ending, (kind, part) in ENDINGS.items():
        if name.endswith(ending):
            module = name.removesuffix(ending)
            if ending.startswith("_lora") and module.endswith("to_out"):
                module += ".0"  # old diffusers name the list, not its first layer
            return AdapterKey(key, module.replace(".", "_"), kind, part)
    return None


def group_keys(keys: Iterable[AdapterKey]) -> dict[str, ModuleKeys]:
    """Gather the keys of each module."""
    modules: dict[str, ModuleKeys] = {}
    for key in keys:
        module = modules.setdefault(key.module, ModuleKeys())
        parts = module.shared if key.kind is None else module.kinds.setdefault(key.kind.name, {})
        parts[key.part] = key.key
    return modules


def adapter_kind(keys: Iterable[str]) -> str | None:
    """``LoRA``, ``LoHa + DoRA``, ...; None when the keys are no adapter's."""
    split = [s for s in map(split_key, keys) if s is not None]
    # A bare `.weight` is IA3's only beside its other part: every checkpoint has such keys.
    names = {s.kind.name for s in split if s.kind is not None and s.part != "ia3_w"}
    if names and any(s.part in dora.PARTS for s in split):
        return " + ".join((*sorted(names), "DoRA"))
    return " + ".join(sorted(names)) or None


def ranks(shapes: Shapes) -> set[int]:
    """The ranks that occur in a file of these keys and shapes."""
    split = [s for key in shapes if (s := split_key(key)) is not None]
    found = set()
    for module in group_keys(split).values():
        for kind in KINDS:
            parts = {part: shapes[key] for part, key in module.kinds.get(kind.name, {}).items()}
            if kind.whole(parts) and all(parts.values()) and (rank := kind.rank(parts)):
                found.add(rank)
    return found


def component_of(module: str) -> str | None:
    """The component that a text encoder's prefix names; None for modules of the UNet and others."""
    found = None
    for component, prefixes in PREFIXES.items():
        if component != "unet" and module.startswith(prefixes):
            found = component  # the last: a first encoder's prefix may begin a second one's
    return found


def module_table(rules: Mapping[str, Iterable[TensorRule]]) -> Table:
    """Every spelling of every module with a weight -> (component, module name).

    `rules` holds the tables of the components that adapters can change.
    """
    table: dict[str, tuple[str, str]] = {}
    for component, entries in rules.items():
        for rule in entries:
            module, dot, tensor = rule.name.rpartition(".")
            if not dot or tensor != "weight":
                continue
            for path in _paths(rule, module):
                for prefix in PREFIXES[component]:
                    table[prefix + path] = component, module
                table.setdefault(path, (component, module))  # the adapter of a text encoder alone
    return table


def _paths(rule: TensorRule, module: str) -> set[str]:
    paths = {module.removeprefix("text_model.")}
    if rule.source.startswith(UNET_PREFIX):  # of text encoders nobody uses the original names
        paths.add(rule.source.removeprefix(UNET_PREFIX).removesuffix(".weight"))
    last = module.rpartition(".")[2]
    if last in OLD_TEXT_NAMES:
        paths.add(module.removeprefix("text_model.").removesuffix(last) + OLD_TEXT_NAMES[last])
    return {path.replace(".", "_") for path in paths}
