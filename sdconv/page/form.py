"""The page's fields, as they stand, to an order."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converter.errors import InputError
from sdconv.page.addons import ordered, read_addons
from sdconv.page.order import BOTH, COMPILE, Order

AS_TOLD = "as told"
"""The choice of a prediction that leaves it to the file."""


@dataclass(frozen=True)
class Form:
    """What a visitor filled in. `addons` and `precision` are JSON that the page keeps for him.

    `model` is the source of a checkpoint, or `bundle` that of an export to go on with; `offered`
    are the components that could be chosen.
    """

    model: str = ""
    bundle: str = ""
    addons: str = ""
    steps: str = BOTH
    variant: str = ""
    ema: bool = False
    clip_skip: str = ""
    prediction: str = AS_TOLD
    zero_snr: bool = False
    base: str = ""
    allow_unused: bool = False
    components: tuple[str, ...] = ()
    offered: str = ""
    profile: str = ""
    batch: str = ""
    format: str = "onnx"
    targets: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    more_sizes: str = ""
    precision: str = ""
    effort: str = "normal"
    minutes: float | None = None
    prompt: str = ""

    @classmethod
    def of(cls, filled: Mapping[str, Any]) -> "Form":
        """From the components' values; a field that was emptied counts as untouched."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in filled.items()
            if value is not None
        }
        return cls(**values)

    def order(self) -> Order:
        """What is wanted; raises InputError for what no field can hold."""
        chosen = self.components if set(self.components) != set(self.offered.split()) else ()
        order = Order.from_json(
            {
                "steps": COMPILE if self.bundle else self.steps,
                "checkpoint": "" if self.bundle else self.model,
                "bundle": self.bundle,
                "variant": self.variant.strip(),
                "ema": self.ema,
                "clip_skip": whole(self.clip_skip),
                "prediction": "" if self.prediction == AS_TOLD else self.prediction,
                "zero_terminal_snr": self.zero_snr,
                "controlnet_base": self.base,
                "allow_unused": self.allow_unused,
                "components": chosen,
                "profile": "" if self.bundle else self.profile,
                "batch": whole(self.batch),
                "format": self.format if self.steps != BOTH else "onnx",
                "targets": self.targets,
                "sizes": ",".join(filter(None, (*self.sizes, self.more_sizes.strip()))),
                "precision": self.precisions(),
                "effort": self.effort,
                "prompt": self.prompt.strip(),
                "emulator_minutes": Order.emulator_minutes
                if self.minutes is None
                else self.minutes,
            }
        )
        return order if self.bundle else ordered(order, read_addons(self.addons))

    def precisions(self) -> dict[str, str]:
        """By target: ``unet=w8f16,vae_decoder=bf16``, of the targets that are chosen."""
        chosen = read_precisions(self.precision)
        said = {t: ",".join(f"{c}={p}" for c, p in of.items()) for t, of in chosen.items()}
        return {target: text for target, text in said.items() if text and target in self.targets}


def read_precisions(text: str) -> dict[str, dict[str, str]]:
    """Target -> component -> precision, from the page's JSON; InputError for anything else."""
    try:
        read = json.loads(text or "{}")
        return {str(t): {str(c): str(p) for c, p in of.items()} for t, of in read.items()}
    except (AttributeError, ValueError) as e:
        raise InputError(f"the precisions cannot be read ({e}): reload the page") from e


def with_precision(text: str, target: str, component: str, precision: str) -> str:
    """The page's JSON after one was chosen; the empty precision is the usual one."""
    chosen = read_precisions(text)
    mine = {**chosen.get(target, {}), component: precision}
    return json.dumps({**chosen, target: {c: p for c, p in mine.items() if p}})


def whole(text: str) -> int | None:
    """A whole number; None where nothing is said. Raises InputError for anything else."""
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError as e:
        raise InputError(f"{text!r} is no whole number") from e
