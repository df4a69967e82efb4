"""An adapter as a user names it: ``FILE``, ``FILE:0.8``, ``FILE:0.8,unet=1,text=0.5,down.1=0.3``.

The most specific scale holds: that of a block of the UNet, else that of the UNet or the text
encoders, else the one for all. Blocks are named ``down.N``, ``mid`` and ``up.N`` after the UNet's.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from converter.errors import InputError
from converter.parsing import finite_number

BLOCK = re.compile(r"(down|up|mid)_blocks?(?:\.(\d+))?\.")


@dataclass(frozen=True)
class AdapterChoice:
    """An adapter file, the scale at which it is merged, and scales of parts of the model."""

    path: Path
    scale: float = 1.0
    parts: tuple[tuple[str, float], ...] = ()

    @classmethod
    def parse(cls, text: str, local: Callable[[str], Path] = Path) -> "AdapterChoice":
        """Read what the module's first line shows; `local` finds FILE on this machine.

        Raises InputError for anything else.
        """
        file, colon, scales = text.rpartition(":")
        if not colon or "/" in scales or Path(text).exists():
            return cls(local(text))
        first, *rest = scales.split(",")
        if "=" in first:
            first, rest = "1", [first, *rest]
        named = tuple(_named(text, item) for item in rest)
        scale = _number(text, first)
        return cls(local(file), scale, named)

    @property
    def scales(self) -> str:
        """The scales as `parse` reads them."""
        named = (f"{name}={_short(value)}" for name, value in self.parts)
        return ",".join((_short(self.scale), *named))

    def __str__(self) -> str:
        return f"{self.path}:{self.scales}"

    def scale_of(self, component: str, module: str) -> float:
        """The scale for one module of a component."""
        scales = dict(self.parts)
        for name in (block_of(component, module), part_of(component)):
            if name in scales:
                return scales[name]
        return self.scale

    def check_names(self, modules: Iterable[tuple[str, str]]) -> None:
        """Raise InputError for a name that is no part of a model of these (component, module)."""
        known: dict[str, None] = {"unet": None, "text": None}
        known |= dict.fromkeys(b for c, m in modules if (b := block_of(c, m)) is not None)
        for name, _ in self.parts:
            if name not in known:
                raise InputError(
                    f"LoRA {self}: no part {name!r} in this model: "
                    f"scales can be given for {', '.join(known)}"
                )


def part_of(component: str) -> str:
    """``unet`` or ``text``."""
    return "unet" if component == "unet" else "text"


def block_of(component: str, module: str) -> str | None:
    """``down.1``, ``mid``, ``up.0``; None outside the UNet's blocks."""
    found = BLOCK.match(module) if component == "unet" else None
    return None if found is None else ".".join(g for g in found.groups() if g is not None)


def _named(text: str, item: str) -> tuple[str, float]:
    name, equals, value = item.partition("=")
    if not equals:
        raise InputError(f"LoRA {text!r}: {item!r} names no part: write unet={item} or text={item}")
    return name.strip(), _number(text, value)


def _number(text: str, word: str) -> float:
    value = finite_number(word)
    if value is None:
        raise InputError(
            f"LoRA {text!r}: {word!r} is no number: write FILE.safetensors:0.8, "
            "or FILE.safetensors:0.8,unet=1,text=0.5,down.1=0.3"
        )
    return value


def _short(value: float) -> str:
    return str(value).removesuffix(".0")
