"""Where embedding files keep their vectors, [n, width] or [width], and their own name.

| written by                    | keys                                                        |
|-------------------------------|-------------------------------------------------------------|
| A1111, the original (.pt)     | ``string_to_param`` -> {"*": vectors}; ``name`` beside it   |
| A1111, kohya (.safetensors)   | ``emb_params``                                              |
| SDXL, all trainers            | ``clip_l`` and ``clip_g``, one for each text encoder        |
| diffusers (.bin, .safetensors)| one key, which is the token                                 |

Sources: https://github.com/AUTOMATIC1111/stable-diffusion-webui,
`modules/textual_inversion/textual_inversion.py`; https://github.com/huggingface/diffusers,
`src/diffusers/loaders/textual_inversion.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from converter.checkpoint import Checkpoint, TensorInfo
from converter.families.rules import HEAD_SIZE

ONLY, CLIP_L, CLIP_G = "", "clip_l", "clip_g"
"""Which text encoder vectors are for: the only one, or one of SDXL's two."""

OLD_VECTORS, OLD_IDS = "string_to_param.", "string_to_token."
NO_TOKENS = ("*", "emb_params")
"""Keys of vectors that name nothing."""

NUMBERS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class FoundVectors:
    """The key of the vectors for each text encoder, and the name that the file gives them."""

    keys: Mapping[str, str]
    name: str | None


def find_vectors(file: Checkpoint) -> FoundVectors | None:
    """Find the vectors among a file's tensors; None when it is no embedding."""
    tensors = {n: info for n, info in file.tensors.items() if not n.startswith(OLD_IDS)}
    if not tensors or not all(map(_holds_vectors, tensors.values())):
        return None
    if tensors.keys() <= {CLIP_L, CLIP_G}:
        keys = {name: name for name in (CLIP_L, CLIP_G) if name in tensors}
        return FoundVectors(keys, _name(file, ONLY))
    if len(tensors) > 1:
        return None
    (key,) = tensors
    token = key.removeprefix(OLD_VECTORS)
    # What a layer of a network is called has dots in it.
    return None if "." in token else FoundVectors({ONLY: key}, _name(file, token))


def _name(file: Checkpoint, token: str) -> str | None:
    return file.metadata.get("name") or (None if token in NO_TOKENS else token) or None


def _holds_vectors(info: TensorInfo) -> bool:
    """Whether it could be one vector or several, as wide as some CLIP."""
    if info.dtype not in NUMBERS or len(info.shape) not in (1, 2) or not info.parameters:
        return False
    return info.shape[-1] % HEAD_SIZE == 0
