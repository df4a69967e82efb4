"""What MNN's diffusion engine loads and feeds, from its own code.

`converter.profiles` says what is made for it. This says a second time, and by other means, what it
takes, so that a mistake there, in a pass or in the converter is found (`conformance.py`).

Source: https://github.com/alibaba/MNN, tag 3.6.1, `transformers/diffusion/engine/src/`:
`stable_diffusion.cpp` (`load`, `unet`, `vae_decoder`), `tokenizer.cpp`. It opens every file in one
folder, without looking for more, and goes on where one is missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

PROFILE = "mnn"

TOKENIZER = "tokenizer.mtok"
"""Beside the models."""

TOKENS, LATENT = (2, 77), (4, 64, 64)
"""Both halves of guidance, negative prompt first; a picture of 512x512 (16384 numbers of noise)."""


@dataclass(frozen=True)
class Fed:
    """A tensor that the engine hands to a model, by name."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Demand:
    """A model: its file, what it is fed in this order, and the outputs that are asked for."""

    file: str
    inputs: tuple[Fed, ...]
    outputs: tuple[str, ...]


def demands(context_dim: int) -> Mapping[str, Demand]:
    """By component; `context_dim` is the width of the text embeddings, which it passes on."""
    return {
        "text_encoder": Demand(
            "text_encoder.mnn",
            (Fed("input_ids", "int32", TOKENS),),
            ("last_hidden_state", "pooler_output"),
        ),
        "unet": Demand(
            "unet.mnn",
            (
                Fed("sample", "float32", (2, *LATENT)),
                Fed("timestep", "int32", (1,)),
                Fed("encoder_hidden_states", "float32", (*TOKENS, context_dim)),
            ),
            ("out_sample",),
        ),
        "vae_decoder": Demand(
            "vae_decoder.mnn",
            (Fed("latent_sample", "float32", (1, *LATENT)),),
            ("sample",),
        ),
    }
