"""CLIP's vocabulary, as it ships with the package: tokens, merges, and letters for bytes."""

import gzip
from importlib.resources import files

from converter.embeddings.choice import MARKS

MERGES = 48894
"""Merges that CLIP uses of the file's many; with 2 x 256 bytes and 2 marks: 49,408 tokens."""

END_OF_WORD = "</w>"
"""Behind every token that ends a word."""


def clip_vocabulary() -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens in the order of their ids, and the merges in the order of their rank."""
    packed = files("converter") / "vocabulary" / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(packed.read_bytes()).decode().split("\n")[1 : MERGES + 1]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    letters = byte_letters()
    ended = [f"{letter}{END_OF_WORD}" for letter in letters]
    return [*letters, *ended, *(a + b for a, b in merges), *MARKS], merges


def byte_letters() -> list[str]:
    """The printable character that stands for each byte, in CLIP's order of ids.

    Printable bytes of Latin-1 stand for themselves; the others, in order, for the characters
    from U+0100 on (Radford et al., GPT-2's byte-level encoding).
    """
    printable, hidden = _printable()
    return [*map(chr, printable), *(chr(0x100 + i) for i in range(len(hidden)))]


def bytes_in_order() -> list[int]:
    """The bytes that `byte_letters` stand for."""
    printable, hidden = _printable()
    return [*printable, *hidden]


def _printable() -> tuple[list[int], list[int]]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return printable, [byte for byte in range(256) if byte not in printable]
