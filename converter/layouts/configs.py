"""A diffusers folder's `config.json` against what the weights say: they must not contradict.

The architecture is always inferred from shapes; a config is only cross-checked, so a wrong or
missing one never decides anything silently.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converter.architecture import CONTROLNET, Architecture
from converter.families.controlnet import kind_of
from converter.families.prediction import PREDICTION_TYPES, Prediction
from converter.files import read_json

DENOISER = {
    "in_channels": "in_channels",
    "block_out_channels": "block_channels",
    "cross_attention_dim": "context_dim",
    "attention_head_dim": "attention_heads",  # diffusers' name for the number of heads
}
FIELDS = {
    "unet": {**DENOISER, "out_channels": "out_channels"},
    CONTROLNET: DENOISER,
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

REFUSED = {
    (CONTROLNET, "global_pool_conditions", True): "its residuals are averaged over the picture, "
    "which no graph here does",
    (CONTROLNET, "controlnet_conditioning_channel_order", "bgr"): "its picture has blue first, and "
    "every host here gives red first",
}
"""Kind of part, name and value in the config that leave no trace in the weights -> why not."""


def config_problems(configs: Mapping[str, Path], architecture: Architecture | None) -> list[str]:
    """Name each value in which a config contradicts the weights, with both values.

    Raises InputError for a config that is no JSON object.
    """
    if architecture is None:
        return []
    problems = []
    for name, path in configs.items():
        found = architecture.parts.get(name)
        config = read_json(path, "a part's configuration")
        problems += [
            f"{name}: {path} says {stated} {value!r}: {why}"
            for (kind, stated, value), why in REFUSED.items()
            if kind == kind_of(name) and config.get(stated) == value
        ]
        for stated, inferred in FIELDS.get(kind_of(name), {}).items():
            says, is_ = config.get(stated), getattr(found, inferred, None)
            if says is not None and is_ is not None and not _agree(says, is_):
                problems.append(
                    f"{name}: {path} says {stated} {says!r:.80}, the weights and their family "
                    f"say {is_!r}"
                )
    return problems


def stated_prediction(configs: Mapping[str, Path]) -> Prediction | None:
    """What the scheduler's config says that the UNet predicts, and where; None if it does not."""
    path = configs.get("scheduler")
    if path is None:
        return None
    config = read_json(path, "a scheduler's configuration")
    value = config.get("prediction_type")
    if value not in PREDICTION_TYPES:
        return None
    return Prediction(value, bool(config.get("rescale_betas_zero_snr")), f"{path} says so")


def _agree(says: Any, is_: Any) -> bool:
    """One number stands for the same number at every level."""
    values = [list(v) if isinstance(v, list | tuple) else [v] for v in (says, is_)]
    levels = max(map(len, values))
    theirs, mine = (v * levels if len(v) == 1 else v for v in values)
    return theirs == mine
