"""`alpha` and rsLoRA where PEFT keeps them: in its configuration, not in tensors.

diffusers writes the configuration of each component into the file's metadata, as JSON under
`lora_adapter_metadata`, every name behind the component's (``unet.lora_alpha``). rsLoRA divides by
the square root of the rank: https://arxiv.org/abs/2312.03732. LyCORIS needs no such note: it writes
an `alpha` that has the root worked in.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converter.errors import InputError

ENTRY = "lora_adapter_metadata"


class PeftSettings:
    """The configurations in one file's metadata; empty for files of other tools."""

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Raises InputError when the entry is there and damaged."""
        try:
            found = json.loads(metadata.get(ENTRY, "{}"))
        except json.JSONDecodeError as e:
            raise InputError(f"{path}: its metadata {ENTRY} is no JSON ({e}): save it again") from e
        self._entries: Mapping[str, Any] = found if isinstance(found, dict) else {}

    def alpha(self, component: str, module: str) -> float | None:
        """The module's `alpha`, if a configuration gives one."""
        patterns = self._get(component, "alpha_pattern") or {}
        for pattern, value in patterns.items():
            if re.fullmatch(rf"(.*\.)?{pattern}", module):
                return float(value)
        alpha = self._get(component, "lora_alpha")
        return None if alpha is None else float(alpha)

    def divisor(self, component: str, rank: int) -> float:
        """What `alpha` is divided by: the rank, or its square root for rsLoRA."""
        return rank**0.5 if self._get(component, "use_rslora") else float(rank)

    def _get(self, component: str, name: str) -> Any:
        """A configuration saved for one model alone has no component's name before it."""
        alone = self._entries.get(name) if component == "unet" else None
        return self._entries.get(f"{component}.{name}", alone)
