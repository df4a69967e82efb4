"""Prompts as token ids: what a CLIP text encoder is fed, without a tokenizer.

Computed once with CLIP's own byte-pair vocabulary (49,408 entries). Rows start with 49406, end
with 49407 and are padded with 49407 to 77, as the SD1.x pipelines do.
"""

from dataclasses import dataclass

import numpy as np

from converter.errors import InputError
from converter.weights import Array

START, END, LENGTH = 49406, 49407, 77


@dataclass(frozen=True)
class Prompt:
    """A text and the ids between START and END."""

    text: str
    ids: tuple[int, ...]

    def tokens(self) -> Array:
        """The padded row: int64 [77]."""
        row = np.full(LENGTH, END, np.int64)
        row[0] = START
        row[1 : 1 + len(self.ids)] = self.ids
        return row


# fmt: off
_LONGEST = (
    550, 2870, 3086, 539, 320, 2442, 10202, 1605, 536, 3424, 267, 4935, 10080, 9889, 531,
    320, 9057, 11348, 267, 3616, 1395, 525, 6682, 47894, 6885, 267, 42215, 4348, 518, 9120,
    8154, 267, 18949, 5873, 1798, 4287, 6244, 267, 8626, 8594, 26595, 267, 4021, 5389, 267,
    1400, 7657, 267, 11240, 12971, 267, 16647, 530, 518, 7011, 1573, 267, 320, 13717, 525,
    518, 10625, 267, 530, 518, 1844, 539, 320, 7991, 3498, 267, 2047, 2577, 267, 3773,
)
# fmt: on

PROMPTS = (
    # A short prompt: most positions hold padding.
    Prompt(
        "a photograph of an astronaut riding a horse on the moon",
        (320, 8853, 539, 550, 18376, 6765, 320, 4558, 525, 518, 3293),
    ),
    # As long as a prompt can be: every position holds a word.
    Prompt(
        "an oil painting of a small harbor town at sunset, fishing boats tied to a wooden pier, "
        "warm light on wet cobblestones, seagulls above the rooftops, distant mountains under "
        "orange clouds, visible brush strokes, rich colors, high detail, dramatic shadows, "
        "reflections in the calm water, a lighthouse on the cliff, in the style of a dutch "
        "master, award winning, soft",
        _LONGEST,
    ),
    # No text: the unconditional half of classifier-free guidance.
    Prompt("", ()),
)


def token_rows(first: int, shape: tuple[int, ...], vocabulary: int) -> Array:
    """Token ids int64 [B, 77]: prompt `first` and the ones after it, in turn.

    Raises InputError when the text encoder is not a CLIP with this vocabulary and length: ids
    that wrap around or are cut would be judged without looking like anything real.
    """
    batch, length = shape
    rows = np.stack([PROMPTS[(first + row) % len(PROMPTS)].tokens() for row in range(batch)])
    if length != LENGTH or rows.max() >= vocabulary:
        raise InputError(
            f"a text encoder with {vocabulary} tokens and {length} positions: the test prompts "
            f"are in CLIP's vocabulary (ids up to {END}, {LENGTH} positions) and do not fit it"
        )
    return rows
