"""Every word that the page shows, by language: `en.json`, `zh.json`, one key a sentence."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sdconv.page.visitor import LANGUAGES


@cache
def sentences(language: str) -> Mapping[str, str]:
    """Key -> sentence, with places for values in braces."""
    data = json.loads(Path(__file__).with_name(f"{language}.json").read_text())
    return {str(key): str(sentence) for key, sentence in data.items()}


def every_language() -> dict[str, Mapping[str, str]]:
    """For Gradio, which chooses in the browser."""
    return {language: sentences(language) for language in LANGUAGES}


@dataclass(frozen=True)
class Words:
    """Says things in one language."""

    language: str

    def __call__(self, key: str, **values: object) -> str:
        """A sentence with its values; KeyError for a key that nobody wrote."""
        return sentences(self.language)[key].format(**values)

    def maybe(self, key: str, otherwise: str) -> str:
        """A sentence that may not be there."""
        return sentences(self.language).get(key, otherwise)

    def verb(self, label: str) -> str:
        """A stage as the program calls it, its verb in this language: ``Compiling unet 64x64``."""
        verb, _, rest = label.partition(" ")
        return f"{self.maybe(f'verb.{verb}', verb)} {rest}".strip()

    def duration(self, seconds: float) -> str:
        """A time in the unit that reads best."""
        if seconds < 99.5:
            count = f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"
            return self("time.seconds", count=count)
        return self._minutes(round(seconds / 60))

    def ago(self, seconds: float) -> str:
        """How long something is over."""
        minutes = int(seconds // 60)
        if minutes == 0:
            return self("time.now")
        days = minutes // 1440
        return self("time.ago", time=self("time.days", count=days) if days > 1
                    else self._minutes(minutes))  # fmt: skip

    def _minutes(self, minutes: int) -> str:
        if minutes < 100:
            return self("time.minutes", count=minutes)
        return self("time.hours", hours=minutes // 60, minutes=minutes % 60)
