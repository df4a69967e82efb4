"""Write what a prompt is to text encoders as raw token ids, for hosts without a tokenizer."""

from dataclasses import dataclass
from pathlib import Path

from converter.bundle import Bundle
from converter.raw_tensors import write_raw
from runtime.staging import padding_of
from runtime.tokenizer import END_TOKEN, NO_WORDS, tokenize

USUAL = {"text_encoder": END_TOKEN, "text_encoder_2": 0}
"""What stands behind a prompt where no bundle tells: its end for CLIP-L, zeros for CLIP-G."""


@dataclass(frozen=True)
class TokensRequest:
    """Tokens of a prompt, and before them those of the negative one.

    `bundle`, where given, knows names of embeddings, and how its text encoders are fed.
    """

    prompt: str
    output: Path
    negative: str = ""
    bundle: Path | None = None


def write_tokens(request: TokensRequest) -> list[Path]:
    """Write a file of int32 [2, 77] for every text encoder; return them."""
    paddings, words = USUAL, NO_WORDS
    if request.bundle is not None:
        bundle = Bundle.load(request.bundle)
        encoders = [name for name in USUAL if name in bundle.components]
        own = padding_of(bundle)
        paddings = {name: own.get(name, END_TOKEN) for name in encoders}
        words = bundle.words
    paths = []
    for name, padding in paddings.items():
        path = request.output / f"{name}.i32"
        write_raw(path, tokenize([request.negative, request.prompt], padding, words))
        paths.append(path)
    return paths
