"""How errors are told to visitors: in one sentence, without the folders of this machine."""

import logging
import re
from pathlib import Path

from converter.errors import InputError
from targets.base import ToolchainError

EXPECTED = (InputError, ToolchainError, OSError)
"""Errors that are told in their own words; any other is a bug, told by its kind alone."""

OWN = re.compile(r"(?:uploads/[0-9a-f]{32,}|jobs/[0-9]{8}-[0-9]{6}-[0-9a-f]{32}(?:/inputs)?)/")
"""The folders of uploads and jobs, whose names mean nothing to anybody."""


def told(error: Exception, root: Path) -> str:
    """What a visitor is told of an error; a bug's traceback goes to the server's log."""
    if isinstance(error, EXPECTED):
        return plain(str(error), root)
    logging.getLogger(__name__).error("the page failed", exc_info=error)
    return f"a fault of sdconv itself ({type(error).__name__}): please report it"


def plain(text: str, root: Path) -> str:
    """A text in which files are called as a visitor knows them."""
    return OWN.sub("", text.replace(f"{root}/", ""))
