"""A saved case counts only for the key it was made with."""

from pathlib import Path

import numpy as np
import pytest

from converter.weights import Array
from validate.store import CaseStore, read_arrays

ARRAYS: dict[str, Array] = {
    "sample": np.arange(6, dtype=np.float32).reshape(2, 3),
    "file": np.array([1], np.int64),
}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    store = CaseStore(tmp_path / "deep" / "folder", "key")
    assert not store.has("t501")
    store.save("t501", ARRAYS, seconds=1.5)
    assert store.has("t501")
    assert store.seconds("t501") == 1.5
    loaded = read_arrays(store.path("t501"))
    assert [*loaded] == [*ARRAYS]
    for name, array in ARRAYS.items():
        assert loaded[name].dtype == array.dtype
        assert (loaded[name] == array).all()


def test_another_key_expires_it(tmp_path: Path) -> None:
    CaseStore(tmp_path, "old").save("t501", ARRAYS, seconds=0)
    assert not CaseStore(tmp_path, "new").has("t501")


@pytest.mark.parametrize("content", [b"", b"PK broken", b"not a zip"])
def test_a_damaged_file_does_not_count(tmp_path: Path, content: bytes) -> None:
    store = CaseStore(tmp_path, "key")
    store.path("t501").write_bytes(content)
    assert not store.has("t501")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    store = CaseStore(tmp_path, "key")
    with pytest.raises(ValueError, match="allow_pickle"):
        store.save("t501", {"object": np.array([object()])}, seconds=0)
    assert [*tmp_path.iterdir()] == []
