"""`--clip-skip N`: an earlier hidden state of the text encoders than the family's own.

N counts as the model pages of SD1.x and A1111 do: 1 is the last layer, 2 the one before it, and
so on, through the final norm where the family has it. SD2 and SDXL take the layer before the last
by themselves. That is their 1, and 2 is one layer earlier still: diffusers counts so from their
own state, N being one more than `clip_skip` of `encode_prompt` in its pipelines of SD1.x, SD2 and
SDXL (0.42.1). Tools that count SDXL's layers from the last one call SDXL's own state 2.

The pooled output of SDXL's second text encoder comes from the last layer, whatever N.
"""

from collections.abc import Collection
from dataclasses import replace

from converter.architecture import Architecture
from converter.components import TEXT_ENCODERS
from converter.errors import InputError


def with_clip_skip(
    architecture: Architecture, components: Collection[str], number: int | None
) -> Architecture:
    """Return the architecture whose exported text encoders skip; None: the family's own.

    Raises InputError where no text encoder is among `components`, or one has too few layers.
    """
    if number is None:
        return architecture
    exported = [name for name in TEXT_ENCODERS if name in components]
    if not exported:
        raise InputError(
            f"--clip-skip {number}: no text encoder is part of this export "
            f"({', '.join(components)}): leave it out, or export the text encoder too"
        )
    for name in exported:
        text = getattr(architecture, name)
        most = text.layers - text.clip_skip
        if not 1 <= number <= most:
            raise InputError(
                f"--clip-skip {number}: the {name} of this {architecture.family} checkpoint has "
                f"{text.layers} layers: choose from 1 (the family's own) to {most}"
            )
        skipping = replace(text, clip_skip=text.clip_skip + number - 1)
        architecture = replace(architecture, **{name: skipping})
    return architecture
