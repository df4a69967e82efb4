"""Every target by the name a user types. One line an entry; imported only when asked for."""

from collections.abc import Callable

from converter.errors import InputError
from targets.base import Target


def _onnxruntime() -> Target:
    from targets.onnxruntime import OnnxRuntimeTarget

    return OnnxRuntimeTarget()


def _bm1684x() -> Target:
    from targets.sophgo.target import SophgoTarget

    return SophgoTarget(name="bm1684x")


TARGETS: dict[str, Callable[[], Target]] = {
    "onnxruntime": _onnxruntime,
    "bm1684x": _bm1684x,
}


def get_target(name: str) -> Target:
    """The target of that name; raises InputError listing what exists."""
    if name not in TARGETS:
        raise InputError(f"unknown target {name!r}: choose one of {', '.join(TARGETS)}")
    return TARGETS[name]()
