"""Every target by the name a user types. One line an entry; imported only when asked for."""

from collections.abc import Callable
from functools import partial

from converter.errors import InputError
from targets.base import Target
from targets.sophgo.chips import CHIPS, REFUSED
from targets.tvm.kinds import KINDS


def _onnxruntime() -> Target:
    from targets.onnxruntime import OnnxRuntimeTarget

    return OnnxRuntimeTarget()


def _mnn(backend: str) -> Target:
    from targets.mnn.target import MnnTarget

    return MnnTarget(backend)


def _sophgo(chip: str) -> Target:
    from targets.sophgo.target import SophgoTarget

    return SophgoTarget(chip)


def _tvm(kind: str) -> Target:
    from targets.tvm.target import TvmTarget

    return TvmTarget(kind)


TARGETS: dict[str, Callable[[], Target]] = {
    "onnxruntime": _onnxruntime,
    "mnn": partial(_mnn, "cpu"),
    "mnn-opencl": partial(_mnn, "opencl"),
    **{kind: partial(_tvm, kind) for kind in KINDS},
    **{chip: partial(_sophgo, chip) for chip in CHIPS},
}


def get_target(name: str) -> Target:
    """The target of that name; raises InputError with the reason, or listing what exists."""
    if name not in TARGETS:
        reason = f"{name}: {REFUSED[name]}" if name in REFUSED else f"unknown target {name!r}"
        raise InputError(f"{reason}: choose one of {', '.join(TARGETS)}")
    return TARGETS[name]()
