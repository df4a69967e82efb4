"""`alpha`, rsLoRA and whatever else PEFT keeps in its configuration, not in tensors.

PEFT writes it as `adapter_config.json` beside its weights. diffusers writes the configuration of
each component into the file's metadata, as JSON under `lora_adapter_metadata`, every name behind
the component's (``unet.lora_alpha``). rsLoRA divides by the square root of the rank:
https://arxiv.org/abs/2312.03732. LyCORIS needs no such note: it writes an `alpha` that has the root
worked in. `fan_in_fan_out` is not read: PEFT itself takes no notice of it for the layers here.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from converter.containers.adapter_folder import CONFIG, PEFT_WEIGHTS
from converter.errors import InputError
from converter.files import read_json

ENTRY = "lora_adapter_metadata"

MERGED = ("LORA", "LOHA", "LOKR", "OFT", "BOFT", "IA3")
"""PEFT's methods (`peft_type`) that are merged here."""
CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Beginnings of `init_lora_weights` with which PEFT first takes something out of the checkpoint."""
NO_PLAIN_CHANGE = (
    "alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication",
    "monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora",
)  # fmt: skip
"""Options of PEFT's LoRA after which a weight is not ``W + alpha / rank * up @ down``."""
SAME_SERIES = (0, 18)
"""The version of PEFT from which on its Cayley-Neumann series is the present one."""


class PeftSettings:
    """The configurations of one file; empty for files of other tools.

    `config` is the configuration's own file, where there is one.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Raises InputError for a damaged or missing one, and for what is not merged here."""
        try:
            found = json.loads(metadata.get(ENTRY, "{}"))
        except json.JSONDecodeError as e:
            raise InputError(f"{path}: its metadata {ENTRY} is no JSON ({e}): save it again") from e
        self._entries: Mapping[str, Any] = found if isinstance(found, dict) else {}
        self.config: Path | None = None
        if path.name in PEFT_WEIGHTS and not self._entries:
            self.config = path.with_name(CONFIG)
            self._entries = read_json(
                self.config, f"PEFT's configuration of {path.name}: put both into one folder"
            )
        _check(path, {name.rpartition(".")[2]: value for name, value in self._entries.items()})

    def alpha(self, component: str, module: str) -> float | None:
        """The module's `alpha`, if a configuration gives one."""
        alpha = self._by_pattern(component, module, "alpha_pattern")
        for name in ("lora_alpha", "alpha"):  # the second is LoHa's and LoKr's
            alpha = self._get(component, name) if alpha is None else alpha
        return None if alpha is None else float(alpha)

    def rank(self, component: str, module: str) -> int | None:
        """The module's `r`, if a configuration gives one."""
        rank = self._by_pattern(component, module, "rank_pattern")
        rank = self._get(component, "r") if rank is None else rank
        return rank if isinstance(rank, int) and rank > 0 else None

    def divisor(self, component: str, rank: int) -> float:
        """What `alpha` is divided by: the rank, or its square root for rsLoRA."""
        return rank**0.5 if self._get(component, "use_rslora") else float(rank)

    def values(self, component: str, module: str, names: Iterable[str]) -> dict[str, float]:
        """The numbers and switches of these names that a configuration gives.

        `feedforward` tells whether IA3 takes the module for one that is scaled on its input.
        """
        found = {name: self._get(component, name) for name in names}
        if "feedforward" in found:
            found["feedforward"] = self._feedforward(component, module)
        return {n: float(v) for n, v in found.items() if isinstance(v, bool | int | float)}

    def _feedforward(self, component: str, module: str) -> bool | None:
        ends = self._get(component, "feedforward_modules")
        if isinstance(ends, str):
            return any(re.fullmatch(ends, name) for name in _names(component, module))
        return None if ends is None else module.endswith(tuple(ends))

    def _by_pattern(self, component: str, module: str, patterns: str) -> Any:
        for pattern, value in (self._get(component, patterns) or {}).items():
            whole = rf"(.*\.)?({pattern})"
            if any(re.fullmatch(whole, name) for name in _names(component, module)):
                return value
        return None

    def _get(self, component: str, name: str) -> Any:
        """A configuration saved for one model alone has no component's name before it."""
        return self._entries.get(f"{component}.{name}", self._entries.get(name))


def _names(component: str, module: str) -> tuple[str, ...]:
    """What PEFT may call a module: transformers put a text encoder's below `text_model`."""
    return (module,) if component == "unet" else (module, f"text_model.{module}")


def _check(path: Path, config: Mapping[str, Any]) -> None:
    """Raise InputError for what cannot be merged; `config` has no components' names."""
    merge = "merge it with PEFT (merge_and_unload), and give the merged model"
    kind = str(config.get("peft_type", "LORA")).rpartition(".")[2]
    if kind not in MERGED:
        raise InputError(
            f"{path}: PEFT's {kind:.40}, and merged here are {', '.join(MERGED)}: {merge}"
        )
    for option in NO_PLAIN_CHANGE:
        if config.get(option):
            raise InputError(f"{path}: a LoRA with PEFT's {option}, not merged here: {merge}")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGE_THE_BASE):
        raise InputError(
            f"{path}: its training began by changing the checkpoint (init_lora_weights {start!r}): "
            "save it with PEFT's path_initial_model_for_weight_conversion, or merge it with PEFT"
        )
    if kind == "OFT" and _another_oft(config):
        raise InputError(
            f"{path}: an OFT of PEFT before 0.18, which computed it in another way: merge it with "
            "the PEFT that trained it, and give the merged model"
        )


def _another_oft(config: Mapping[str, Any]) -> bool:
    """Whether it is of a PEFT that no later one reads, or whose series was cut elsewhere."""
    version = [int(n) for n in re.findall(r"\d+", str(config.get("peft_version", "0.0")))[:2]]
    other_series = bool(config.get("use_cayley_neumann")) and tuple(version) < SAME_SERIES
    return other_series or "oft_block_size" not in config
