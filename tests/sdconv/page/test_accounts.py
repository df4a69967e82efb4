"""Accounts: read from a file or the environment, never from the command line."""

import asyncio
import inspect
import os
import time
from pathlib import Path

import pytest

from converter.errors import InputError
from sdconv.page import accounts
from sdconv.page.accounts import VARIABLE, Accounts
from sdconv.ui import ui


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "PAUSE", 0.1)


def test_a_file_has_a_line_for_each(tmp_path: Path) -> None:
    file = tmp_path / "accounts"
    file.write_text("# ours\n\nann:pass:word\n ben :x\n")
    read = Accounts.read(file)
    assert read is not None
    assert read.passwords == {"ann": "pass:word", "ben": "x"}
    assert "pass:word" not in repr(read)


def test_the_environment_is_read_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "ann:x")
    read = Accounts.read(None)
    assert read is not None
    assert read.passwords == {"ann": "x"}
    assert VARIABLE not in os.environ
    assert Accounts.read(None) is None


@pytest.mark.parametrize("content", ["", "# nobody\n", "ann\n", ":x\n", "ann:\n"])
def test_anything_else_is_a_readable_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "accounts"
    file.write_text(content)
    with pytest.raises(InputError, match="user:password"):
        Accounts.read(file)
    with pytest.raises(InputError, match="cannot be read"):
        Accounts.read(tmp_path / "missing")


def test_only_the_right_password_is_admitted() -> None:
    given = Accounts({"ann": "right", "名": "密码"})

    async def try_all() -> list[bool]:
        pairs = [("ann", "right"), ("ann", "wrong"), ("ann", ""), ("ben", ""), ("", ""),
                 ("名", "密码")]  # fmt: skip
        return [await given.admits(*pair) for pair in pairs]

    assert asyncio.run(try_all()) == [True, False, False, False, False, True]


def test_guesses_are_answered_one_at_a_time_and_others_need_not_wait() -> None:
    given = Accounts({"ann": "right"})

    async def guess() -> tuple[float, float]:
        began = time.monotonic()
        guesses = [asyncio.create_task(given.admits("ann", str(i))) for i in range(5)]
        await asyncio.sleep(0)
        assert await given.admits("ann", "right")
        right = time.monotonic() - began
        await asyncio.gather(*guesses)
        return right, time.monotonic() - began

    right, wrong = asyncio.run(guess())
    assert right < 0.1
    assert wrong >= 0.5


def test_no_option_takes_a_password() -> None:
    assert "password" not in str(inspect.signature(ui).parameters.keys())
