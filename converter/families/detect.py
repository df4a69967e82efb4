"""Which family a set of tensor names and shapes belongs to. File names are never looked at."""

from collections.abc import Collection, Mapping

from converter.architecture import CONTROLNET, TIME_ID_WIDTH
from converter.checkpoint import TensorInfo
from converter.families.controlnet import as_unet
from converter.families.registry import FAMILIES
from converter.families.rules import extent
from converter.families.sdxl_refiner import SDXL_REFINER
from converter.families.unet import UNET_PREFIX

Tensors = Mapping[str, TensorInfo]

NOT_EXPORTED = {
    "flux": "a transformer, not a UNet",
    "sd3": "a transformer, not a UNet",
    "stable-cascade": "three networks of its own kind, not one UNet",
    "stable-video": "its UNet has layers over time",
    "playground-v2.5": "its latents have a mean and a deviation per channel (EDM), which the "
    "interfaces do not carry",
    "cosxl": "it is sampled in EDM's v-parametrisation, which no scheduler here knows",
    "sd2-depth": "its UNet takes a depth map as a fifth channel, made by a network of its own",
    "sd2-unclip": "its UNet takes an image embedding, made by a network of its own",
    "x4-upscaler": "its UNet takes a noise level class and a small picture",
}
"""Families that are recognised and refused, and why."""

MARKERS = {
    "double_blocks.": "flux",
    "joint_blocks.": "sd3",
    "clip_txt_mapper.": "stable-cascade",
    ".time_stack.": "stable-video",
    "edm_mean": "playground-v2.5",
    "edm_vpred.sigma_max": "cosxl",
    f"{UNET_PREFIX}label_emb.weight": "x4-upscaler",
}
"""What only names of that family contain."""


def checkpoint_family(tensors: Tensors) -> str:
    """Name the family: one of `FAMILIES`, one of `NOT_EXPORTED`, or ``unknown``."""
    for marker, family in MARKERS.items():
        if any(marker in name for name in tensors):
            return family
    stem = tensors.get(f"{UNET_PREFIX}input_blocks.0.0.weight")
    if stem is None:
        controlnet = as_unet(tensors, CONTROLNET)
        return checkpoint_family(controlnet) if controlnet else _by_text_encoder(tensors)
    addition = tensors.get(f"{UNET_PREFIX}label_emb.0.0.weight")
    if addition is not None:
        return _with_addition(tensors, extent(addition, 1))
    projection = next((i for n, i in tensors.items() if n.endswith(".1.proj_in.weight")), None)
    if projection is None:
        return "unknown"
    if len(projection.shape) == 4:
        return "sd15"
    return "sd2-depth" if extent(stem, 1) == 5 else "sd2"


def _with_addition(tensors: Tensors, width: int) -> str:
    """Tell the families whose UNet adds an embedding of `width` numbers to the timestep's."""
    if any(name.startswith(f"{UNET_PREFIX}input_blocks.1.1.") for name in tensors):
        return "sd2-unclip"  # no SDXL attends at full resolution
    context = next((i for n, i in tensors.items() if n.endswith("attn2.to_k.weight")), None)
    pooled = width - TIME_ID_WIDTH * SDXL_REFINER.time_ids
    # The refiner's context and pooled embedding come from one text encoder.
    return "sdxl-refiner" if context is not None and extent(context, 1) == pooled else "sdxl"


def _by_text_encoder(names: Collection[str]) -> str:
    """Tell a file without a UNet by the prefix of its text encoders."""
    for name, family in sorted(FAMILIES.items(), key=lambda item: -len(item[1].text_encoders)):
        if all(family.layout(e, names).is_in(names) for e in family.text_encoders):
            return name
    return "unknown"
