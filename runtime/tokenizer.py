"""CLIP's tokenizer from the vocabulary that ships with the package: nothing is downloaded.

A bundle with embeddings (`converter.embeddings`) adds names to the vocabulary. A name in a prompt
is found without regard to case, and only where it is not part of a longer word; the ids that it
stands for take its place.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from converter.architecture import CLIP_VOCABULARY
from converter.clip_vocabulary import clip_vocabulary
from converter.modules import require_torch
from converter.weights import Array

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

LENGTH = 77
START_TOKEN, END_TOKEN = CLIP_VOCABULARY - 2, CLIP_VOCABULARY - 1

Words = Mapping[str, Sequence[int]]
"""Names that prompts may hold besides CLIP's words -> the token ids that stand for them."""
NO_WORDS: Words = MappingProxyType({})


def tokenize(prompts: list[str], padding: int = END_TOKEN, words: Words = NO_WORDS) -> Array:
    """Turn prompts into token ids, int64 [len(prompts), 77].

    A row starts with 49406 and ends with 49407. Behind that stands `padding`: 49407 again in
    the pipelines of SD1.x, 0 in those of SD2.x. What does not fit is cut off: see `overflow`.
    """
    rows = np.full((len(prompts), LENGTH), padding, np.int64)
    for row, prompt in zip(rows, prompts, strict=True):
        ids = [START_TOKEN, *token_ids(prompt, words)[: LENGTH - 2], END_TOKEN]
        row[: len(ids)] = ids
    return rows


def overflow(prompt: str, words: Words = NO_WORDS) -> str:
    """Return the end of a prompt that does not fit into 77 tokens; empty when all of it does."""
    names = {number: name for name, ids in words.items() for number in ids}
    cut = token_ids(prompt, words)[LENGTH - 2 :]
    runs = groupby(cut, names.get)
    return " ".join(str(_tokenizer().decode(list(r))) if n is None else n for n, r in runs)


def token_ids(prompt: str, words: Words = NO_WORDS) -> list[int]:
    """Turn a prompt into token ids, however many, without start and end."""
    names = sorted(words, key=len, reverse=True)  # of two that fit, the longer
    pattern = "|".join(f"({_pattern(name)})" for name in names)
    ids: list[int] = []
    begin = 0
    for found in re.finditer(pattern, prompt, re.IGNORECASE) if names else ():
        assert found.lastindex is not None
        ids += [*_known(prompt[begin : found.start()]), *words[names[found.lastindex - 1]]]
        begin = found.end()
    return [*ids, *_known(prompt[begin:])]


def _known(text: str) -> Sequence[int]:
    """Token ids of CLIP's own words."""
    ids: list[int] = _tokenizer()(text, add_special_tokens=False)["input_ids"]
    return ids


def _pattern(name: str) -> str:
    """Match a name as a whole: where it begins or ends with a letter, no other may be next to it.

    A name can have several words; between them a prompt may hold any spaces.
    """
    before, after = (
        r"\b" if letter.isalnum() or letter == "_" else "" for letter in (name[0], name[-1])
    )
    return before + r"\s+".join(map(re.escape, name.split())) + after


@cache
def _tokenizer() -> "CLIPTokenizer":
    require_torch("reading a prompt")
    from transformers import CLIPTokenizer

    tokens, merges = clip_vocabulary()
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)  # type: ignore[arg-type]  # pairs, as `tokenizers` has them
