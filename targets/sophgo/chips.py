"""The Sophgo chips a target can be made for, as data. Another chip is one line."""

from dataclasses import dataclass

from converter.errors import InputError
from targets.sophgo.precisions import PRECISIONS


@dataclass(frozen=True)
class Chip:
    """A chip by the compiler's name for it, and the libraries that emulate it.

    The emulator finds its chip under fixed names (`libcmodel.so`, `libbmlib.so.0`); `cmodel` and
    `bmlib` are the files of the toolchain that these names must lead to.
    """

    name: str
    device: str
    cmodel: str
    bmlib: str = "libbmlib_bm1684x.so.0"
    precisions: tuple[str, ...] = tuple(PRECISIONS)
    """What tpu-mlir 1.30.2 makes working code for."""

    @property
    def summary(self) -> str:
        """One line: what is made and where that runs."""
        return f"one bmodel per component, a stage per size; {self.device}, emulated here"


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("bm1684x", "Sophgo BM1684X", "libcmodel_bm1684x.so"),
        Chip("bm1688", "Sophgo BM1688 on one core", "libcmodel_bm1688.so"),
        Chip("cv186x", "Sophgo CV186X", "libcmodel_bm1688.so"),
        Chip(
            "bm1684x2",
            "Sophgo BM1684X2",
            "libcmodel_bm1684x2.so",
            bmlib="libbmlib_bm1684x2.so.0",
            precisions=tuple(p for p in PRECISIONS if p != "f32"),  # its code generator fails
        ),
    )
}


def get_chip(name: str) -> Chip:
    """The chip of that name; raises InputError listing what exists.

    Not here: bm1690 and bm1690e, whose emulator has another runtime; bm1684, cv183x, cv181x, sg2380
    and sg2262, for which tpu-mlir 1.30.2 fails; cv184x, 68 seconds for a step of SD1.5.
    """
    if name not in CHIPS:
        raise InputError(f"unknown Sophgo chip {name!r}: choose one of {', '.join(CHIPS)}")
    return CHIPS[name]
