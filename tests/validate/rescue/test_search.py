"""The search for the smallest set, over networks that are a set of what they need."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.base import Health
from validate.rescue.search import OutOfTimeError, sick, smallest

Names = list[str]


def needing(*wanted: str) -> Callable[[Sequence[str]], bool]:
    return lambda kept: set(wanted) <= set(kept)


@given(st.integers(1, 60), st.sets(st.integers(0, 59), min_size=1, max_size=5))
def test_exactly_what_is_needed_remains(count: int, places: set[int]) -> None:
    names = [f"op{index}" for index in range(count)]
    wanted = {names[place % count] for place in places}
    assert set(smallest(names, needing(*wanted))) == wanted


def test_neighbours_are_found_in_few_trials() -> None:
    names = [f"op{index}" for index in range(200)]
    tried = []

    def works(kept: Sequence[str]) -> bool:
        tried.append(kept)
        return {"op120", "op121"} <= set(kept)

    assert smallest(names, works) == ["op120", "op121"]
    assert len(tried) < 40


def test_without_any_one_of_the_rest_it_does_not_work() -> None:
    """Two ways to be rescued: either is as small as can be."""
    names = [f"op{index}" for index in range(12)]

    def works(kept: Sequence[str]) -> bool:
        return {"op1", "op9"} <= set(kept) or {"op4", "op5", "op6"} <= set(kept)

    found = smallest(names, works)
    assert works(found)
    assert not any(works([one for one in found if one != left]) for left in found)


def test_out_of_time_what_was_found_is_returned() -> None:
    trials = iter(range(3))

    def works(kept: Sequence[str]) -> bool:
        if next(trials, None) is None:
            raise OutOfTimeError
        return "op7" in kept

    found = smallest([f"op{index}" for index in range(64)], works)
    assert "op7" in found and len(found) < 64


def health(marks: str) -> list[Health]:
    """One letter an operation: `.` finite, `i` with Inf, `n` with NaN."""
    return [
        Health(f"op{index}", nan=letter == "n", inf=letter == "i", peak=1.0)
        for index, letter in enumerate(marks)
    ]


@pytest.mark.parametrize(
    ("marks", "wanted"),
    [
        ("....", ""),
        (".in.", "op1 op2"),
        (".i..in", "op4 op5"),  # the first Inf was harmless
        ("..n.n", "op2"),
        (".ii.", "op1"),  # no NaN: where Inf begins
        ("iin", "op0 op1 op2"),
    ],
)
def test_where_it_begins(marks: str, wanted: str) -> None:
    assert sick(health(marks)) == wanted.split()
