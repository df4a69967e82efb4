"""A diffusers folder's `config.json` against what the weights say: they must not contradict.

The architecture is always inferred from shapes; a config is only cross-checked, so a wrong or
missing one never decides anything silently.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converter.architecture import Architecture
from converter.files import read_json
from converter.layouts.parts import LAST_LAYER_CUT

FIELDS = {
    "unet": {
        "in_channels": "in_channels",
        "out_channels": "out_channels",
        "block_out_channels": "block_channels",
        "cross_attention_dim": "context_dim",
        "attention_head_dim": "attention_heads",  # diffusers' name for the number of heads
    },
    "vae": {
        "latent_channels": "latent_channels",
        "block_out_channels": "block_channels",
        "layers_per_block": "layers_per_block",
        "scaling_factor": "scaling_factor",
    },
    "text_encoder": {
        "vocab_size": "vocabulary",
        "max_position_embeddings": "positions",
        "hidden_size": "hidden_size",
        "intermediate_size": "intermediate_size",
        "num_hidden_layers": "layers",
        "num_attention_heads": "heads",
        "hidden_act": "activation",
    },
}
FIELDS["text_encoder_2"] = FIELDS["text_encoder"]
"""Part -> name in the config -> name in the architecture."""


def config_problems(configs: Mapping[str, Path], architecture: Architecture | None) -> list[str]:
    """Name each value in which a config contradicts the weights, with both values.

    Raises InputError for a config that is no JSON object.
    """
    if architecture is None:
        return []
    problems = []
    for part, path in configs.items():
        found = getattr(architecture, part, None)
        config = read_json(path, "a part's configuration")
        for stated, inferred in FIELDS.get(part, {}).items():
            says, is_ = config.get(stated), getattr(found, inferred, None)
            if inferred == "layers" and is_ and (architecture.family, part) in LAST_LAYER_CUT:
                is_ -= 1
            if says is not None and is_ is not None and not _agree(says, is_):
                problems.append(
                    f"{part}: {path} says {stated} {says!r:.80}, the weights and their family "
                    f"say {is_!r}"
                )
    return problems


def stated_prediction(configs: Mapping[str, Path]) -> tuple[str, str] | None:
    """What the scheduler's config says that the UNet predicts, and where; None if it does not."""
    path = configs.get("scheduler")
    if path is None:
        return None
    value = read_json(path, "a scheduler's configuration").get("prediction_type")
    return (value, f"{path} says so") if value in ("epsilon", "v_prediction") else None


def _agree(says: Any, is_: Any) -> bool:
    """One number stands for the same number at every level."""
    values = [list(v) if isinstance(v, list | tuple) else [v] for v in (says, is_)]
    levels = max(map(len, values))
    theirs, mine = (v * levels if len(v) == 1 else v for v in values)
    return theirs == mine
