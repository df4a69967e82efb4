"""The smallest set of operations to keep: where to begin, and how to make it smaller.

Nothing here knows what an operation is; `works` says whether a set of them is enough.
"""

from collections.abc import Callable, Sequence

from targets.base import Health

Works = Callable[[Sequence[str]], bool]


class OutOfTimeError(RuntimeError):
    """Raised by `works` when no further trial may be made."""


def sick(health: Sequence[Health]) -> list[str]:
    """The operations from where Inf begins to where it becomes NaN; none where all is finite.

    Inf alone can be harmless: 1 / (1 + exp(x)) forgives it. So what counts is the first NaN, and of
    the Inf before it those that come straight before.
    """
    ends = next((i for i, one in enumerate(health) if one.nan), None)
    if ends is None:
        ends = next((i for i, one in enumerate(health) if one.inf), None)
    if ends is None:
        return []
    begins = ends
    while begins > 0 and health[begins - 1].inf:
        begins -= 1
    return [one.operation for one in health[begins : ends + 1]]


def smallest(candidates: Sequence[str], works: Works) -> list[str]:
    """Make a set that works as small as can be: without any one of the rest it does not.

    Zeller and Hildebrandt's delta debugging (IEEE Trans. Software Engineering 28(2), 2002):
    halves, then quarters and so on, each alone or taken away. What was found when `works` raises
    OutOfTimeError is returned, and works too.
    """
    kept, parts = list(candidates), 2
    try:
        while len(kept) > 1:
            size = -(-len(kept) // parts)
            chunks = [kept[first : first + size] for first in range(0, len(kept), size)]
            rests = [[one for one in kept if one not in chunk] for chunk in chunks]
            smaller = next((chunk for chunk in chunks if works(chunk)), None)
            if smaller is not None:
                kept, parts = smaller, 2
                continue
            # Of two halves each is the other's rest.
            smaller = next((rest for rest in rests if len(chunks) > 2 and works(rest)), None)
            if smaller is not None:
                kept, parts = smaller, max(parts - 1, 2)
            elif size == 1:
                break
            else:
                parts = min(2 * parts, len(kept))
    except OutOfTimeError:
        pass
    return kept
