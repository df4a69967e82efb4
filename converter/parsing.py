"""Numbers that a user types."""

import math


def finite_number(word: str) -> float | None:
    """The number that a word is; None for anything else, infinities and not-a-number included."""
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
