"""`tokenizer.mtok`: CLIP's tokenizer for MNN's engine, which has no tokenizer of that kind.

Source of the format: MNN 3.6.1, `transformers/llm/engine/src/tokenizer/tokenizer.cpp`
(`load_vocab_binary`). A file describes steps: replace characters, split into words, merge pairs of
tokens. What CLIP needs besides is that the last token of a word is another than the same letters
within a word (``cat</w>`` is not ``cat``), and no step can mark an end: MNN's own exporter writes a
file without it, with which "cat" is told to the text encoder as the beginning of "category".

Here the steps are made to do it. The replacement puts a mark before every byte (``AcAaAt`` for
"cat", `#` before what is no letter); of the merges, the first join a byte with the mark behind it,
which makes it a byte within a word, and so the last one stays an end; the next take away the mark
in front of the word. From there on ids are CLIP's own and merge by CLIP's own rules.

What differs from CLIP: accents that are characters of their own are not joined to their letters,
and invisible characters (U+200D between the parts of an emoji) separate words.
"""

import json
import struct
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from converter.cache import Cache
from converter.clip_vocabulary import bytes_in_order, clip_vocabulary
from converter.embeddings.choice import MARKS
from converter.files import link_or_copy

FILE = "tokenizer.mtok"

LETTER, OTHER = "A", "#"
"""The marks: before a byte of a letter or digit, and before any other. They sort before all else,
so that of the spellings of an id the engine keeps one without a mark."""

APOSTROPHE = "~"
"""Stands for it in a word, where the pattern has to tell it."""

WORDS = (
    *(rf"{OTHER}{APOSTROPHE}{''.join(LETTER + c for c in end)}"
      for end in ("s", "t", "re", "ve", "m", "ll", "d")),
    r"\p{L}+",
    r"[^\s\p{L}]+",
)  # fmt: skip
"""CLIP's words after the replacement, by which digits stand alone."""

PRIVATE = 0xE000
"""The first character that no text has: those from here on stand for embeddings' tokens."""

NO_TEMPLATE = struct.pack("<IHBH", 0, 0, 0, 0)
"""No chat template, no end of a turn, no flags, no beginning."""


VERSION = 1
"""Raise it when the same words give another file than before."""


def write_mtok(path: Path, words: Mapping[str, Sequence[int]]) -> None:
    """Write the file; `words` are a bundle's embeddings: name -> token ids."""
    link_or_copy(_made(words), path)


def mtok(words: Mapping[str, Sequence[int]]) -> bytes:
    """The content of the file."""
    return _made(words).read_bytes()


def _made(words: Mapping[str, Sequence[int]]) -> Path:
    """The file in the cache: it takes seconds to make."""
    inputs = {
        "words": json.dumps({name: list(ids) for name, ids in words.items()}),
        "unicode": unicodedata.unidata_version,
        "version": str(VERSION),
    }

    def build(folder: Path) -> None:
        (folder / FILE).write_bytes(_content(words))

    return Cache("tokenizers").make("CLIP for MNN", inputs, build).path / FILE


def _content(words: Mapping[str, Sequence[int]]) -> bytes:
    ids = {number for numbers in words.values() for number in numbers}
    return (
        b"430 4\n0 0 0\n\n"  # magic number, kind; no special, stop or prefix tokens
        + _replacements(words)
        + struct.pack("<B", 4)
        + _text("|".join(WORDS))
        + struct.pack("<BB", 1, 1)  # keep what matches, drop the rest
        + _model(sorted(ids))
        + struct.pack("<B", 0)  # bytes are decoded as they are
        + _marks()
        + NO_TEMPLATE
    )


def _replacements(words: Mapping[str, Sequence[int]]) -> bytes:
    """Names of embeddings, longest first, then every character."""
    steps = []
    for name in sorted(words, key=len, reverse=True):
        private = "".join(chr(PRIVATE + number) for number in _numbered(words)[name])
        spellings = dict.fromkeys((name, name.lower(), name.upper(), name.title()))
        steps += [
            struct.pack("<B", 3) + _text(spelling) + _text(f" {private} ") for spelling in spellings
        ]
    table = list(_table())
    entries = b"".join(struct.pack("<I", code) + _text(text) for code, text in table)
    steps.append(struct.pack("<BI", 6, len(table)) + entries)
    return struct.pack("<BI", 4, len(steps)) + b"".join(steps)


def _numbered(words: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """The ids of embeddings counted from 0, since private characters are few."""
    order = sorted({number for numbers in words.values() for number in numbers})
    return {name: [order.index(number) for number in ids] for name, ids in words.items()}


def _table() -> Iterator[tuple[int, str]]:
    """Every assigned character -> what stands for it, by rising code."""
    for code in range(0x21, 0x110000):
        character = chr(code)
        category = unicodedata.category(character)
        if category in ("Cn", "Cs", "Co"):
            continue
        if character.isspace():
            yield code, " "
        else:
            plain = unicodedata.normalize("NFC", character).lower()
            yield code, "".join(map(_spelled, plain))


def _spelled(character: str) -> str:
    """The bytes of a character of a word, each behind its mark; a digit is a word of its own."""
    kind = unicodedata.category(character)[0]
    content = character.encode()
    if kind == "L":
        return "".join(LETTER + _letter(byte) for byte in content)
    if kind == "N":
        return f" {''.join(LETTER + _letter(byte) for byte in content)} "
    return "".join(OTHER + _other(byte) for byte in content)


def _letter(byte: int) -> str:
    """A byte of a letter or digit, as a letter."""
    return chr(byte) if chr(byte) in "abcdefghijklmnopqrstuvwxyz" else chr(0x100 + byte)


def _other(byte: int) -> str:
    """A byte of anything else, as a sign: those of Braille are 256."""
    return APOSTROPHE if byte == ord("'") else chr(0x2800 + byte)


def _model(embedded: Sequence[int]) -> bytes:
    """Vocabulary and merges."""
    tokens, merges = clip_vocabulary()
    clip = {token: number for number, token in enumerate(tokens)}
    ends = {byte: 256 + place for place, byte in enumerate(bytes_in_order())}
    spellings: dict[str, int] = {}
    for byte, end in ends.items():
        for spelled in (_letter(byte), _other(byte)):
            spellings[spelled] = end
    kept = {number: spelled for spelled, number in _rising(spellings)}
    for end in ends.values():
        for mark in (LETTER, OTHER):
            spellings[kept[end] + mark] = end - 256
    kept |= {number: text for text, number in _rising(spellings) if number < 256}
    for number in range(512):
        for mark in (LETTER, OTHER):
            spellings[mark + kept[number]] = number
    for left, right in merges:
        number = clip[left + right]
        kept[number] = kept[clip[left]] + kept[clip[right]]
        spellings[kept[number]] = number
    for place, number in enumerate(embedded):
        spellings[chr(PRIVATE + place)] = number
    marks = {mark: len(tokens) + len(embedded) + i for i, mark in enumerate((LETTER, OTHER))}
    pairs = [
        *((end, mark) for end in ends.values() for mark in marks.values()),
        *((mark, number) for number in range(512) for mark in marks.values()),
        *((clip[left], clip[right]) for left, right in merges),
    ]
    return _packed_model({**spellings, **marks}, pairs)


def _rising(spellings: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    """In the order in which the engine reads them; of one id, it keeps the last."""
    return sorted(spellings.items(), key=lambda item: item[0].encode())


def _packed_model(spellings: Mapping[str, int], pairs: Sequence[tuple[int, int]]) -> bytes:
    ranked = sorted((left << 32 | right, rank) for rank, (left, right) in enumerate(pairs))
    return (
        struct.pack("<BIBBI", 0, len(spellings), 0, 0, len(ranked))
        + b"".join(_text(text) + struct.pack("<I", number) for text, number in _rising(spellings))
        + b"".join(struct.pack("<III", key >> 32, key & 0xFFFFFFFF, rank) for key, rank in ranked)
    )


def _marks() -> bytes:
    """The words for the beginning and the end, as a prompt may hold them."""
    first = len(clip_vocabulary()[0]) - len(MARKS)
    entries = (struct.pack("<IBBB", first + i, 1, 0, 0) + _text(t) for i, t in enumerate(MARKS))
    return struct.pack("<I", len(MARKS)) + b"".join(entries)


def _text(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<H", len(content)) + content
