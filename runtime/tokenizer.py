"""CLIP's tokenizer from the vocabulary that ships with the package: nothing is downloaded."""

import gzip
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from converter.modules import require_torch
from converter.weights import Array

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MERGES = 48894
"""Merges that CLIP uses of the file's many; with 2 x 256 bytes and 2 marks: 49,408 tokens."""
LENGTH = 77
END_TOKEN = 49407
START, END = "<|startoftext|>", "<|endoftext|>"


def tokenize(prompts: list[str], padding: int = END_TOKEN) -> Array:
    """Turn prompts into token ids, int64 [len(prompts), 77].

    A row starts with 49406 and ends with 49407. Behind that stands `padding`: 49407 again in
    the pipelines of SD1.x, 0 in those of SD2.x. What does not fit is cut off: see `overflow`.
    """
    found = _tokenizer()(prompts, padding="max_length", max_length=LENGTH, truncation=True)
    rows = np.array(found["input_ids"], np.int64)
    ends = rows == END_TOKEN
    rows[ends & (ends.cumsum(axis=1) > 1)] = padding
    return rows


def overflow(prompt: str) -> str:
    """Return the end of a prompt that does not fit into 77 tokens; empty when all of it does."""
    ids = _tokenizer()(prompt)["input_ids"][LENGTH - 1 : -1]
    return str(_tokenizer().decode(ids)) if ids else ""


@cache
def _tokenizer() -> "CLIPTokenizer":
    require_torch("reading a prompt")
    from transformers import CLIPTokenizer

    tokens, merges = _vocabulary()
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)  # type: ignore[arg-type]  # pairs, as `tokenizers` has them


def _vocabulary() -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens in the order of their ids, and the merges in the order of their rank."""
    packed = files("runtime") / "vocabulary" / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(packed.read_bytes()).decode().split("\n")[1 : MERGES + 1]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    letters = _byte_letters()
    ended = [f"{letter}</w>" for letter in letters]
    return [*letters, *ended, *(a + b for a, b in merges), START, END], merges


def _byte_letters() -> list[str]:
    """The printable character that stands for each byte, in CLIP's order of ids.

    Printable bytes of Latin-1 stand for themselves; the others, in order, for the characters
    from U+0100 on (Radford et al., GPT-2's byte-level encoding).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(0x100 + i) for i in range(len(hidden)))]
