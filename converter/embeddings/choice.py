"""An embedding as a user names it: ``FILE``, or ``NAME=FILE`` to choose what prompts call it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from converter.errors import InputError

MARKS = ("<|startoftext|>", "<|endoftext|>")
"""What CLIP's tokenizer calls the ends of a prompt."""


@dataclass(frozen=True)
class EmbeddingChoice:
    """An embedding's file, and its name in prompts (None: the one that the file tells)."""

    path: Path
    name: str | None = None

    @classmethod
    def parse(cls, text: str, local: Callable[[str], Path] = Path) -> "EmbeddingChoice":
        """Read what the module's first line shows; `local` finds FILE on this machine.

        Raises InputError for a NAME that no prompt could hold, and for NAME= alone.
        """
        name, equals, file = text.partition("=")
        # An equals sign may also belong to a file's name or to an address (...#sha256=...).
        if not equals or "/" in name or ":" in name or Path(text).exists():
            return cls(local(text))
        if not file:
            raise InputError(f"--embedding {text!r}: no file behind the name: write NAME=FILE")
        return cls(local(file), checked_name(name))

    def __str__(self) -> str:
        return str(self.path) if self.name is None else f"{self.name}={self.path}"


def checked_name(name: str) -> str:
    """Return the name with single spaces; raises InputError for one that no prompt could hold."""
    words = " ".join(name.split())
    if not words or words in MARKS:
        raise InputError(
            f"an embedding cannot be named {name!r}: name it by another word with "
            "--embedding NAME=FILE"
        )
    return words
