"""Whose jobs a visitor may see, and which language he reads."""

import pytest

from sdconv.page.visitor import COOKIE, Visitor, language_of, new_key


def test_a_browser_is_known_by_its_key_which_is_not_written_down() -> None:
    key, other = new_key(), new_key()
    ann = Visitor.of(None, {COOKIE: key}, None)
    assert ann == Visitor.of(None, {COOKIE: key}, None)
    assert ann.owner is not None
    assert key not in ann.owner
    assert ann.owner != Visitor.of(None, {COOKIE: other}, None).owner


def test_an_account_goes_before_the_browser() -> None:
    assert Visitor.of("ann", {COOKIE: new_key()}, None).owner == "user ann"


@pytest.mark.parametrize("key", ["", "short", "0"])
def test_a_key_that_we_never_gave_owns_nothing(key: str) -> None:
    assert Visitor.of(None, {COOKIE: key}, None).owner is None


def test_a_job_of_somebody_is_for_nobody_else() -> None:
    ann, ben, program = Visitor("browser a"), Visitor("browser b"), Visitor(None)
    assert ann.may_see("browser a")
    assert not ben.may_see("browser a")
    assert not program.may_see("browser a")
    assert all(visitor.may_see(None) for visitor in (ann, ben, program))


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        (None, "en"), ("", "en"), ("de-DE,de", "en"), ("zh-CN,zh;q=0.9", "zh"), ("zh-TW", "zh"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"), ("fr, zh;q=0.5, en;q=0.4", "zh"),
        ("en;q=0.2, zh;q=0.9", "zh"), ("zh;q=1.2.3, en", "en"), ("*", "en"),
    ],
)  # fmt: skip
def test_the_language_that_a_browser_likes_best(accepted: str | None, language: str) -> None:
    assert language_of(accepted) == language
