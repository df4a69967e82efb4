"""Who asks: whose jobs he may see, and the language he reads.

With accounts, a job belongs to the user who is logged in. Without, it belongs to a browser, which
keeps a random key in a cookie that scripts cannot read; only the key's hash is written down.
Programs that call the page have no cookie: their jobs belong to nobody, and whoever knows the id,
which cannot be guessed, may use it.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

COOKIE = "sdconv-visitor"
COOKIE_SECONDS = 400 * 24 * 3600
"""The longest that browsers keep one."""

LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Visitor:
    """`owner` is what his jobs are marked with; None for a program without a cookie."""

    owner: str | None
    language: str = "en"

    @classmethod
    def of(
        cls, user: str | None, cookies: Mapping[str, str], accepted_languages: str | None
    ) -> "Visitor":
        """Tell from what a request brings; `user` is the account's name, if there are accounts."""
        return cls(_owner(user, cookies.get(COOKIE)), language_of(accepted_languages))

    def may_see(self, owner: str | None) -> bool:
        """Whether a job with this mark is his, given that he knows its id."""
        return owner is None or owner == self.owner


def new_key() -> str:
    """What a browser is given to keep."""
    return secrets.token_urlsafe(32)


def _owner(user: str | None, key: str | None) -> str | None:
    if user is not None:
        return f"user {user}"
    if key is None or len(key) < 40:  # none of `new_key`
        return None
    return f"browser {hashlib.sha256(key.encode()).hexdigest()}"


def language_of(accepted: str | None) -> str:
    """The language of ours that a browser likes best (RFC 9110, Accept-Language)."""
    weighed = []
    for place, item in enumerate((accepted or "").split(",")):
        match = re.fullmatch(r"\s*([A-Za-z]+)[\w-]*\s*(?:;\s*q=(\d(?:\.\d+)?)\s*)?", item)
        if match is not None and match[1].lower() in LANGUAGES:
            weighed.append((-float(match[2] or 1), place, match[1].lower()))
    return min(weighed)[2] if weighed else LANGUAGES[0]
