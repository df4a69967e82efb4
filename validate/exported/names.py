"""Where a checkpoint keeps the tensors of a module, as diffusers' own converters say.

Nothing of `converter.families` takes part. The converters are given stand-ins for tensors, which
remember what was cut out of them and turned, so no value is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from converter.architecture import Architecture, UNetArchitecture, VaeArchitecture
from converter.checkpoint import TensorInfo
from converter.components import part
from converter.families.controlnet import home, is_controlnet
from converter.weights import Array

CLIP = ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer.")
"""Before the names of a CLIP of transformers inside a checkpoint."""
OPEN_CLIP = ("cond_stage_model.model.", "conditioner.embedders.1.model.",
             "conditioner.embedders.0.model.")  # fmt: skip
"""Before those of an OpenCLIP."""
CONDITION = "model.diffusion_model.time_embed.cond_proj.weight"
"""A full LCM's tensor, which the converter does not know."""


@dataclass(frozen=True)
class Stored:
    """A stand-in for the tensor `key` of a file: some of its rows, perhaps transposed."""

    key: str
    shape: tuple[int, ...]
    rows: tuple[int, int] | None = None
    transposed: bool = False
    dtype: None = None

    @property
    def ndim(self) -> int:
        """Number of extents."""
        return len(self.shape)

    @property
    def T(self) -> Stored:  # noqa: N802  (as torch calls it)
        """The same, transposed."""
        return replace(self, shape=self.shape[::-1], transposed=not self.transposed)

    def clone(self) -> Self:
        """The same."""
        return self

    detach = contiguous = clone

    def __getitem__(self, index: Any) -> Stored:
        places = index if isinstance(index, tuple) else (index,)
        shape, rows = list(self.shape[len(places) :]), self.rows
        kept = []
        for axis, place in enumerate(places):
            if isinstance(place, int):
                if (self.shape[axis], place) != (1, 0):
                    raise ValueError(
                        f"{self.key}: element {place} of {self.shape[axis]} is cut out"
                    )
                continue
            first, last, _ = place.indices(self.shape[axis])
            if (first, last) != (0, self.shape[axis]):
                if axis or rows or self.transposed:
                    raise ValueError(f"{self.key}: cut along axis {axis}")
                rows = (first, last)
            kept.append(last - first)
        return replace(self, shape=(*kept, *shape), rows=rows)

    def take(self, values: Array) -> Array:
        """Do to the tensor what was done to this stand-in; a view."""
        if self.rows is not None:
            values = values[self.rows[0] : self.rows[1]]
        if self.transposed:
            values = values.reshape(values.shape[0], -1).T
        return values.reshape(self.shape)


def stored_tensors(
    component: str, architecture: Architecture, tensors: Mapping[str, TensorInfo]
) -> dict[str, Stored]:
    """Module's tensor -> where the file has it, of one component.

    `tensors` is a checkpoint in the original layout. More may be found than the component needs.
    """
    stored: dict[str, Any] = {name: Stored(name, info.shape) for name, info in tensors.items()}
    described = part(architecture, component)
    if is_controlnet(component):
        assert isinstance(described, UNetArchitecture)
        return _controlnet(component, described, stored)
    if isinstance(described, UNetArchitecture):
        return _unet(described, stored)
    if isinstance(described, VaeArchitecture):
        return _vae(described, stored)
    return _text_encoder(component, stored)


def _unet(described: UNetArchitecture, stored: dict[str, Any]) -> dict[str, Stored]:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    config = _config(described)
    found: dict[str, Stored] = convert_ldm_unet_checkpoint(stored, config)
    if CONDITION in stored:
        found["time_embedding.cond_proj.weight"] = stored[CONDITION]
    return _present(found)


def _config(described: UNetArchitecture) -> dict[str, Any]:
    text_time = "text_time" if described.pooled_dim else None
    return {"layers_per_block": len(described.down_depths[0]), "addition_embed_type": text_time}


def _controlnet(
    component: str, described: UNetArchitecture, stored: dict[str, Any]
) -> dict[str, Stored]:
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    mine = {n.removeprefix(home(component)): t for n, t in stored.items()
            if n.startswith(home(component))}  # fmt: skip
    found: dict[str, Stored] = convert_controlnet_checkpoint(mine, _config(described))
    for layer in range(2):
        for kind in ("weight", "bias"):
            name = f"label_emb.0.{2 * layer}.{kind}"
            if name in mine:
                found[f"add_embedding.linear_{1 + layer}.{kind}"] = mine[name]
    return _present(found)


def _vae(described: VaeArchitecture, stored: dict[str, Any]) -> dict[str, Stored]:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    levels = [None] * len(described.block_channels)
    config = {"down_block_types": levels, "up_block_types": levels}
    return _present(convert_ldm_vae_checkpoint(stored, config))


def _text_encoder(component: str, stored: dict[str, Any]) -> dict[str, Stored]:
    from diffusers.loaders.single_file_utils import (
        convert_ldm_clip_checkpoint,
        convert_open_clip_checkpoint,
    )

    for prefix in CLIP if component == "text_encoder" else ():
        if any(name.startswith(prefix) for name in stored):
            found: dict[str, Stored] = convert_ldm_clip_checkpoint(stored, prefix)
            return {n.removeprefix("text_model."): t for n, t in _present(found).items()}
    prefix = next(p for p in OPEN_CLIP if any(name.startswith(p) for name in stored))
    width = stored[f"{prefix}ln_final.weight"].shape[0]

    class Model:
        class config:  # noqa: N801  (as transformers' models have it)
            hidden_size = width

    # The width of the parts is taken from the projection, where there is one.
    found = convert_open_clip_checkpoint(Model, stored, prefix)
    return {n.removeprefix("text_model."): t for n, t in _present(found).items()}


def _present(found: Mapping[str, Any]) -> dict[str, Stored]:
    return {name: tensor for name, tensor in found.items() if tensor is not None}
