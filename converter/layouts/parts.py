"""A part of a model (UNet, VAE, text encoder) in any spelling, brought to the original names.

A part's *home* is its prefix in the original single-file layout. What a file holds is found by
marker names: with the home's prefix or another tool's or none, and under the original names or
under diffusers' and transformers'. A text encoder keeps transformers' names below its home, where
CompVis' files keep them too; the families know both spellings of OpenCLIP's.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from converter.architecture import CONTROLNET
from converter.checkpoint import Checkpoint, TensorInfo
from converter.errors import InputError
from converter.families.controlnet import (
    CONTROLNET_PREFIX,
    DIFFERENCE,
    home,
    is_controlnet,
    kind_of,
)
from converter.families.unet import UNET_PREFIX
from converter.families.vae import VAE_PREFIX
from converter.layouts.controlnet_names import original_controlnet_names
from converter.layouts.unet_names import original_unet_names
from converter.layouts.vae_names import original_vae_names

Names = Mapping[str, str]
"""Names in a file -> original names without the home."""


@dataclass(frozen=True)
class Spelling:
    """One way of naming a part: `marker` is a tensor that every such part has."""

    marker: str
    translate: Callable[[Collection[str]], Names]
    words: str


def _as_they_are(names: Collection[str]) -> Names:
    return {name: name for name in names}


def _below(prefix: str) -> Callable[[Collection[str]], Names]:
    """Put a prefix before a text encoder's names; a whole CLIP's other half is left."""
    return lambda names: {n: prefix + n for n in names if not n.startswith(PICTURE_ENCODER)}


PICTURE_ENCODER = ("vision_model.", "visual.", "visual_projection.", "logit_scale")
ORIGINAL, DIFFUSERS, TRANSFORMERS = "original names", "diffusers names", "transformers names"
TOKENS = "embeddings.token_embedding.weight"
BEFORE_TEXT = ("", "transformer.text_model.", "transformer.", "model.")
"""What a home's names of a text encoder begin with, where a file of its own leaves that out."""

SPELLINGS = {
    "unet": (
        Spelling("input_blocks.0.0.weight", _as_they_are, ORIGINAL),
        Spelling("down_blocks.0.resnets.0.conv1.weight", original_unet_names, DIFFUSERS),
    ),
    "vae": (
        Spelling("decoder.up.0.block.0.conv1.weight", _as_they_are, ORIGINAL),
        Spelling("encoder.down.0.block.0.conv1.weight", _as_they_are, ORIGINAL),
        Spelling("decoder.up_blocks.0.resnets.0.conv1.weight", original_vae_names, DIFFUSERS),
        Spelling("encoder.down_blocks.0.resnets.0.conv1.weight", original_vae_names, DIFFUSERS),
    ),
    "text_encoder": (
        Spelling(f"transformer.text_model.{TOKENS}", _as_they_are, ORIGINAL),
        Spelling(f"transformer.{TOKENS}", _as_they_are, ORIGINAL),
        Spelling("model.token_embedding.weight", _as_they_are, ORIGINAL),
        Spelling(f"text_model.{TOKENS}", _below("transformer."), TRANSFORMERS),
        Spelling(TOKENS, _below("transformer.text_model."), TRANSFORMERS),
        Spelling("token_embedding.weight", _below("model."), "OpenCLIP names"),
    ),
    CONTROLNET: (
        Spelling("input_hint_block.0.weight", _as_they_are, ORIGINAL),
        Spelling("controlnet_cond_embedding.conv_in.weight", original_controlnet_names, DIFFUSERS),
    ),
}
SPELLINGS["text_encoder_2"] = SPELLINGS["text_encoder"]

PREFIXES = {
    "unet": (UNET_PREFIX, "diffusion_model.", "unet.", ""),
    "vae": (VAE_PREFIX, "vae.", ""),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0.", "text_encoder.", ""),
    "text_encoder_2": ("conditioner.embedders.1.", "text_encoder_2.", "cond_stage_model.", ""),
    CONTROLNET: (CONTROLNET_PREFIX, "controlnet.", ""),
}
"""What files put before a part's names; the first is looked for first."""

OPTIONS = {
    "unet": "--unet",
    "vae": "--vae",
    "text_encoder": "--text-encoder",
    "text_encoder_2": "--text-encoder-2",
    CONTROLNET: "--controlnet",
}
"""Part -> the option that supplies it."""

OTHER_NETWORKS = ("controlnet_cond_embedding.", "input_hint_block.", "controlnet_down_blocks.")
"""Names that a ControlNet has beside those of half a UNet."""

REFUSED = {
    "lora_controlnet": "a control-LoRA (low-rank changes of a UNet, not a ControlNet)",
    "task_embedding": "a union of ControlNets with a task input, which no host here feeds",
    "control_add_embedding.": "a union of ControlNets with a task input, which no host here feeds",
}
"""Beginnings of names in files that look like a ControlNet -> what they are instead."""


@dataclass(frozen=True)
class Part:
    """A part found in a file: its tensors under original names without the home.

    The file puts `prefix` before the names that `spelling` knows.
    """

    tensors: Mapping[str, TensorInfo]
    spelling: Spelling
    prefix: str = ""
    names: Names = field(default_factory=dict)

    def called(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """What the file calls tensors that are in it, and would call those that are missing.

        `wanted` maps original names without the home to the module's; the result has those whose
        name in the file is known.
        """
        own = {original: name for name, original in self.names.items()}
        guesses = {
            original: [name, *(original.removeprefix(start) for start in BEFORE_TEXT)]
            for original, name in wanted.items()
            if original not in own
        }
        every = [*self.names, *(guess for several in guesses.values() for guess in several)]
        translated = self.spelling.translate(every)
        for original, several in guesses.items():
            right = [guess for guess in several if translated.get(guess) == original]
            if right:
                own[original] = right[0]
        return {original: self.prefix + name for original, name in own.items()}


def homes(family: str, controlnets: Iterable[str] = ()) -> Mapping[str, str]:
    """Part -> its prefix in the original single-file layout of `family`.

    ControlNets, which have none there, stand under their own names.
    """
    text = {"text_encoder": "cond_stage_model."}
    if family == "sdxl":
        text = {
            "text_encoder": "conditioner.embedders.0.",
            "text_encoder_2": "conditioner.embedders.1.",
        }
    elif family == "sdxl-refiner":
        text = {"text_encoder_2": "conditioner.embedders.0."}
    return {"unet": UNET_PREFIX, "vae": VAE_PREFIX, **text, **{c: home(c) for c in controlnets}}


def find_part(tensors: Mapping[str, TensorInfo], part: str) -> Part | None:
    """Find `part` among tensors of any spelling; None when it is not there."""
    kind = kind_of(part)
    if kind != CONTROLNET and any(name.startswith(OTHER_NETWORKS) for name in tensors):
        return None
    for prefix in PREFIXES[kind]:
        for spelling in SPELLINGS[kind]:
            if prefix + spelling.marker in tensors:
                length = len(prefix)
                mine = {n[length:]: info for n, info in tensors.items() if n.startswith(prefix)}
                names = spelling.translate(mine)
                found = {names[n]: mine[n] for n in names}
                if kind == CONTROLNET and DIFFERENCE in tensors:  # it has no prefix
                    found[DIFFERENCE] = tensors[DIFFERENCE]
                return Part(found, spelling, prefix, names)
    return None


def require_part(checkpoint: Checkpoint, part: str) -> Part:
    """Find `part` in a file given for it; raises InputError when it holds something else."""
    for marker, what in REFUSED.items() if is_controlnet(part) else ():
        if any(name.startswith(marker) for name in checkpoint.tensors):
            raise InputError(f"{checkpoint.path}: {what}: use a ControlNet of its own")
    found = find_part(checkpoint.tensors, part)
    if found is None:
        first = next(iter(checkpoint.tensors), "none")
        raise InputError(
            f"{checkpoint.path}: no {part} in it, neither under original nor under diffusers "
            f"names (first tensor: {first}): give a file that holds one with "
            f"{OPTIONS[kind_of(part)]}"
        )
    return found
