"""The content-addressed store: same inputs, same entry; a reason every time; never a half entry."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from converter.cache import ENTRY_FILE, Cache, content_key


def writes(text: str) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        (folder / "x").write_text(text)

    return build


def test_the_same_inputs_are_built_once(tmp_path: Path) -> None:
    cache = Cache("things", tmp_path)
    first = cache.make("a", {"graph": "1", "chip": "x"}, writes("built"))
    second = cache.make("a", {"chip": "x", "graph": "1"}, writes("again"))
    assert (first.reused, second.reused) == (False, True)
    assert (second.path / "x").read_text() == "built"
    assert first.why == "made for the first time"
    assert second.why == "same chip, graph as before"
    assert cache.find({"graph": "1", "chip": "x"}) == first.path
    assert cache.find({"graph": "2", "chip": "x"}) is None


def test_a_rebuild_says_what_changed_since_the_closest_entry(tmp_path: Path) -> None:
    cache = Cache("things", tmp_path)
    cache.make("a", {"graph": "1", "chip": "x", "version": "1"}, writes("1"))
    cache.make("a", {"graph": "2", "chip": "x", "version": "1"}, writes("2"))
    cache.make("b", {"graph": "2", "chip": "y", "version": "2"}, writes("3"))
    made = cache.make("a", {"graph": "2", "chip": "y", "version": "1"}, writes("4"))
    assert made.why == "made again: chip changed"


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    left = tmp_path / "things" / f".{child.pid}.abc.partial"
    left.mkdir(parents=True)
    (left / "half").touch()
    Cache("things", tmp_path).make("a", {"graph": "1"}, writes("whole"))
    assert not left.exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_build_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    cache = Cache("things", tmp_path)

    def fails(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise error

    with pytest.raises(error):
        cache.make("a", {"graph": "1"}, fails)
    assert list((tmp_path / "things").iterdir()) == []
    assert not cache.make("a", {"graph": "1"}, writes("whole")).reused


def test_two_runs_that_make_the_same_entry_both_get_it(tmp_path: Path) -> None:
    cache = Cache("things", tmp_path)

    def overtaken(folder: Path) -> None:
        Cache("things", tmp_path).make("a", {"graph": "1"}, writes("the other's"))
        (folder / "x").write_text("ours")

    made = cache.make("a", {"graph": "1"}, overtaken)
    assert (made.path / "x").read_text() == "the other's"
    assert len(list((tmp_path / "things").iterdir())) == 1


def test_an_entry_that_is_being_made_is_none(tmp_path: Path) -> None:
    cache = Cache("things", tmp_path)

    def build(folder: Path) -> None:
        (folder / ENTRY_FILE).write_text("written last, and here too early")
        assert cache.entries() == []
        cache.make("a", {"graph": "2"}, writes("beside it"))

    cache.make("a", {"graph": "1"}, build)
    assert len(cache.entries()) == 2


def test_keys_depend_on_values_and_not_on_order() -> None:
    assert content_key({"a": 1, "b": [2]}) == content_key({"b": [2], "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 2})
