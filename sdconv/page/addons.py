"""What a visitor adds to a checkpoint: any file, put where it belongs by what it is.

The list travels as JSON between page and server, so it is read like anything from outside.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from converter.adapters.lcm import SAMPLING
from converter.architecture import CONTROLNET
from converter.errors import InputError
from converter.inspection import Inspection
from converter.layouts.parts import OPTIONS
from converter.parsing import finite_number
from sdconv.page.order import Order

LORA, EMBEDDING = "lora", "textual_inversion"
PARTS = tuple(part for part in OPTIONS if part != CONTROLNET)
KINDS = (LORA, CONTROLNET, *PARTS, EMBEDDING)

LCM_KIND = "LCM-LoRA"
LCM_LORAS = {
    ("sd15", "base"): "hf:latent-consistency/lcm-lora-sdv1-5",
    ("sdxl", "base"): "hf:latent-consistency/lcm-lora-sdxl",
    ("sdxl", "SSD-1B"): "hf:latent-consistency/lcm-lora-ssd-1b",
}
"""By family and variant: the adapters that the authors of LCM published (arXiv 2311.05556)."""

MOST_SCALE = 4.0


@dataclass(frozen=True)
class Addon:
    """One file beside the checkpoint. `facts` are a LoRA's kind, ranks and number of modules."""

    source: str
    kind: str
    name: str
    family: str = ""
    facts: tuple[str, str, int] = ("", "", 0)
    scale: float = 1.0
    word: str = ""

    @classmethod
    def of(cls, source: str, name: str, found: Inspection) -> "Addon":
        """Raises InputError for a file that belongs nowhere beside a checkpoint."""
        if found.kind not in KINDS:
            raise InputError(
                f"{name}: a {found.kind} file, which cannot be added to a checkpoint: choose it "
                "as the model, or add a LoRA, ControlNet, VAE, text encoder or embedding"
            )
        facts = ("", "", 0)
        if found.adapter is not None:
            ranks = ", ".join(map(str, found.adapter.rank))
            facts = (found.adapter.kind, ranks, found.adapter.modules)
        return cls(source, found.kind, name, found.family, facts)

    @property
    def is_lcm(self) -> bool:
        """Whether it makes an LCM of the model."""
        return self.facts[0] == LCM_KIND and self.scale != 0


def read_addons(text: str) -> tuple[Addon, ...]:
    """From the page's JSON; raises InputError for anything that `write_addons` does not write."""
    try:
        addons = tuple(_read(item) for item in json.loads(text or "[]"))
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise InputError(f"what was added cannot be read ({e}): reload the page") from e
    return addons


def _read(item: Mapping[str, Any]) -> Addon:
    kind, ranks, modules = item["facts"]
    texts = {name: str(item[name]) for name in ("source", "kind", "name", "family", "word")}
    scale = float(item["scale"])
    if texts["kind"] not in KINDS or not abs(scale) <= MOST_SCALE:
        raise ValueError(f"{texts['kind']}, scale {scale}")
    return Addon(**texts, facts=(str(kind), str(ranks), int(modules)), scale=scale)


def write_addons(addons: Sequence[Addon]) -> str:
    """As JSON for the page to keep."""
    return json.dumps([asdict(addon) for addon in addons])


def with_addon(addons: Sequence[Addon], new: Addon) -> tuple[Addon, ...]:
    """The list with one more; a part takes the place of another of its kind."""
    if any(addon.source == new.source for addon in addons):
        return tuple(addons)
    kept = (a for a in addons if new.kind not in PARTS or a.kind != new.kind)
    return (*kept, new)


def edited(addons: Sequence[Addon], what: str, index: int, value: str) -> tuple[Addon, ...]:
    """The list after one was edited: ``remove``, ``scale`` or ``word``."""
    if not 0 <= index < len(addons):
        return tuple(addons)
    before, addon, after = addons[:index], addons[index], addons[index + 1 :]
    if what == "remove":
        return (*before, *after)
    if what == "scale" and (scale := finite_number(value)) is not None:
        addon = replace(addon, scale=max(-MOST_SCALE, min(MOST_SCALE, scale)))
    if what == "word":
        addon = replace(addon, word=value[:80])
    return (*before, addon, *after)


def ordered(order: Order, addons: Sequence[Addon]) -> Order:
    """An order with everything that was added to its checkpoint."""
    nets = tuple(a.source for a in addons if a.kind == CONTROLNET)
    return replace(
        order,
        loras=tuple((a.source, f"{a.scale:g}") for a in addons if a.kind == LORA),
        controlnets=nets,
        controlnet_base=order.controlnet_base if nets else "",
        parts={a.kind: a.source for a in addons if a.kind in PARTS},
        embeddings=tuple((a.source, a.word) for a in addons if a.kind == EMBEDDING),
    )


def lcm_advice(addons: Sequence[Addon]) -> Mapping[str, Any] | None:
    """How pictures are drawn when one of these makes an LCM of the model."""
    return SAMPLING if any(addon.is_lcm for addon in addons) else None
