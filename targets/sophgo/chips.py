"""The Sophgo chips a target can be made for, as data. Another chip is one line."""

from dataclasses import dataclass

from converter.errors import InputError


@dataclass(frozen=True)
class Chip:
    """A chip by the compiler's name for it, and the libraries that emulate it.

    The emulator finds its chip under fixed names (`libcmodel.so`, `libbmlib.so.0`); `cmodel` and
    `bmlib` are the files of the toolchain that these names must lead to.
    """

    name: str
    summary: str
    cmodel: str
    bmlib: str = "libbmlib_bm1684x.so.0"


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="bm1684x",
            summary="one bmodel per component, a stage per size; Sophgo BM1684X, emulated here",
            cmodel="libcmodel_bm1684x.so",
        ),
    )
}


def get_chip(name: str) -> Chip:
    """The chip of that name; raises InputError listing what exists."""
    if name not in CHIPS:
        raise InputError(f"unknown Sophgo chip {name!r}: choose one of {', '.join(CHIPS)}")
    return CHIPS[name]
