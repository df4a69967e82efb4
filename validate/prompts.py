"""The prompts of the test inputs, as token ids."""

from converter.architecture import CLIP_VOCABULARY
from converter.errors import InputError
from converter.weights import Array
from runtime.tokenizer import LENGTH, tokenize

PROMPTS = (
    # Most positions hold padding.
    "a photograph of an astronaut riding a horse on the moon",
    # As long as a prompt can be: every position holds a word.
    (
        "an oil painting of a small harbor town at sunset, fishing boats tied to a wooden pier, "
        "warm light on wet cobblestones, seagulls above the rooftops, distant mountains under "
        "orange clouds, visible brush strokes, rich colors, high detail, dramatic shadows, "
        "reflections in the calm water, a lighthouse on the cliff, in the style of a dutch "
        "master, award winning, soft"
    ),
    # No text: the unconditional half of classifier-free guidance.
    "",
)


ADDED = "<added>"
"""Stands for the ids behind CLIP's own, those of embeddings, at the end of the first prompt."""


def token_rows(first: int, shape: tuple[int, ...], vocabulary: int) -> Array:
    """Token ids int64 [B, 77]: prompt `first` and the ones after it, in turn.

    Raises InputError when the text encoder is not a CLIP with this vocabulary and length: ids
    that wrap around or are cut would be judged without looking like anything real.
    """
    batch, length = shape
    added = range(CLIP_VOCABULARY, vocabulary)
    prompts = (f"{PROMPTS[0]} {ADDED}", *PROMPTS[1:]) if added else PROMPTS
    chosen = [prompts[(first + row) % len(prompts)] for row in range(batch)]
    rows = tokenize(chosen, words={ADDED: added})
    if length != LENGTH or rows.max() >= vocabulary:
        raise InputError(
            f"a text encoder with {vocabulary} tokens and {length} positions: the test prompts "
            f"are in CLIP's vocabulary (ids up to 49407, {LENGTH} positions) and do not fit it"
        )
    return rows
