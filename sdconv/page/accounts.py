"""Who may use the page, where not everybody may: user names with passwords, from a file.

The file has a line ``user:password`` for each; empty lines and those that begin with # are left
out. A secret on the command line could be read by everybody on the machine, so there is no such
option; the environment may name it instead (``SDCONV_UI_ACCOUNTS``, in the same form).
"""

import asyncio
import hmac
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from converter.errors import InputError

VARIABLE = "SDCONV_UI_ACCOUNTS"

PAUSE = 0.5
"""Seconds between two wrong passwords that are answered, whoever sends them."""


@dataclass(frozen=True)
class Accounts:
    """User names and passwords."""

    passwords: Mapping[str, str] = field(repr=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False, compare=False)

    @classmethod
    def read(cls, file: Path | None) -> "Accounts | None":
        """From a file, else from the environment; None where neither is given."""
        if file is None:
            given = os.environ.pop(VARIABLE, None)  # no program that is started needs to know it
            return None if given is None else cls(_parsed(given.splitlines(), VARIABLE))
        try:
            lines = file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise InputError(f"{file}: cannot be read as accounts ({e}): check the path") from e
        return cls(_parsed(lines, str(file)))

    async def admits(self, user: str, password: str) -> bool:
        """Whether a password is the user's; a wrong one is answered late, one at a time."""
        known = self.passwords.get(user, "")
        right = hmac.compare_digest(password.encode(), known.encode()) and bool(known)
        if not right:
            async with self._turn:
                await asyncio.sleep(PAUSE)
        return right


def _parsed(lines: Iterable[str], where: str) -> dict[str, str]:
    passwords = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, password = line.partition(":")
        if not colon or not user.strip() or not password:
            raise InputError(f"{where}: line {number} is not user:password")
        passwords[user.strip()] = password
    if not passwords:
        raise InputError(f"{where}: no account in it: write a line user:password for each user")
    return passwords
