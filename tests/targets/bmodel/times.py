"""Comparing a bmodel with the vendor's, which differs in the time when its tool ran."""

import re

CLOCK = re.compile(rb"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\n")
"""The only bytes that differ from the vendor's: the 25 of `Model.time`, when the tool ran."""


def assert_same_but_time(ours: bytes, theirs: bytes) -> None:
    """Assert that two files are equal but for the time in them."""
    clocks = CLOCK.findall(theirs)
    assert len(clocks) == 1
    assert CLOCK.sub(clocks[0], ours) == theirs
