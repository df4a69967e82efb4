"""The Sophgo chips a target can be made for, as data. Another chip is one entry.

A chip of several cores is a target for every number of them, since a bmodel's instructions are made
for a number of cores: `bm1688` runs on one, `bm1688-2core` on two. Without a number it is one core
everywhere: the compiler's own default, and the only form that leaves the other cores to others.
"""

import shutil
from dataclasses import dataclass, replace

from converter.errors import InputError
from targets.sophgo.precisions import PRECISIONS

NO_F32 = tuple(name for name in PRECISIONS if name != "f32")


@dataclass(frozen=True)
class Emulator:
    """How a chip is emulated: `library` computes what it computes, under a runtime of its kind.

    The runtime of the BM1684X and its kin finds its chip under fixed names (`libcmodel.so`, and
    `libbmlib.so.0` for the file `bmlib`). The TPUv7 runtime (`bmlib` None) is told by variables,
    also how many cores the chip has where these are not its usual eight.
    """

    library: str
    bmlib: str | None = "libbmlib_bm1684x.so.0"
    chip_cores: int | None = None

    @property
    def driver(self) -> str:
        """The script of `inside/` that drives it."""
        return "emulator_driver.py" if self.bmlib else "tpuv7_driver.py"


@dataclass(frozen=True)
class Chip:
    """A chip by the compiler's name for it, and the cores that a bmodel is made for.

    `no_emulator` says why its bmodels cannot be run here, where they cannot. `needs` names the
    programs that the compiler calls for it and does not bring along. `precisions` is what tpu-mlir
    1.30.2 makes working code for.
    """

    name: str
    device: str
    emulator: Emulator
    cores: int = 1
    precisions: tuple[str, ...] = tuple(PRECISIONS)
    no_emulator: str | None = None
    needs: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """As typed after --target."""
        return self.name if self.cores == 1 else f"{self.name}-{self.cores}core"

    def missing(self) -> list[str]:
        """The programs of `needs` that are not here."""
        return [name for name in self.needs if shutil.which(name) is None]

    @property
    def summary(self) -> str:
        """One line: what is made and where that runs."""
        on = "" if self.cores == 1 else f" on {self.cores} cores"
        where = "emulated here" if self.no_emulator is None else "not emulated"
        return f"one bmodel per component, a stage per size; {self.device}{on}, {where}"

    def on(self, *cores: int, no_emulator: str | None = None) -> "tuple[Chip, ...]":
        """The same chip by number of cores."""
        return tuple(replace(self, cores=count, no_emulator=no_emulator) for count in cores)


JIT = ("cmake", "make", "cc", "c++")
"""tpu-mlir builds the kernels of attention itself for some chips."""

WAITS_FOREVER = (
    "the emulator of tpu-mlir 1.30.2 never ends for BM1690E on several cores: the engines wait "
    "for messages of the SDMA engine, which gets no commands (vendor's own runner included)"
)

BM1684X = Chip("bm1684x", "Sophgo BM1684X", Emulator("libcmodel_bm1684x.so"))
BM1688 = Chip("bm1688", "Sophgo BM1688", Emulator("libcmodel_bm1688.so"))
CV186X = Chip("cv186x", "Sophgo CV186X", BM1688.emulator)
BM1684X2 = Chip(
    "bm1684x2",
    "Sophgo BM1684X2",
    Emulator("libcmodel_bm1684x2.so", "libbmlib_bm1684x2.so.0"),
    precisions=NO_F32,  # its code generator fails
)
BM1690 = Chip("bm1690", "Sophgo BM1690", Emulator("libtpuv7_emulator.so", None), needs=JIT)
BM1690E = Chip("bm1690e", "Sophgo BM1690E", Emulator("libtpuv7.1_emulator.so", None, 4), needs=JIT)

CHIPS = {
    chip.target: chip
    for chip in (
        BM1684X,
        *BM1688.on(1, 2),
        CV186X,
        BM1684X2,
        *BM1690.on(*range(1, 9)),
        BM1690E,
        *BM1690E.on(2, 3, 4, no_emulator=WAITS_FOREVER),
    )
}
"""By what is typed after --target."""


REFUSED = {
    "bm1684": "tpu-mlir 1.30.2 lowers no half precision for it, and in f32 predicts no latency",
    "cv183x": "tpu-mlir 1.30.2 cannot lower a UNet for it (UNREACHABLE in TopToTpuPass)",
    "cv181x": "tpu-mlir 1.30.2 cannot lower a UNet for it (UNREACHABLE in TopToTpuPass)",
    "cv184x": "tpu-mlir 1.30.2 predicts 68.6 seconds for one run of SD1.5's UNet on it",
    "sg2262": "tpu-mlir 1.30.2 builds no attention for it, and there is no emulator",
    "sg2380": "tpu-mlir 1.30.2 crashes on a UNet for it",
    "sgtpuv8": "tpu-mlir 1.30.2 needs more than 22 GB of memory for SD1.5's UNet on it",
}
"""Sophgo's other chips: why no target is made for them."""


def get_chip(name: str) -> Chip:
    """The chip of that target; raises InputError listing what exists."""
    if name not in CHIPS:
        raise InputError(f"unknown Sophgo chip {name!r}: choose one of {', '.join(CHIPS)}")
    return CHIPS[name]
