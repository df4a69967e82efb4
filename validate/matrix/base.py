"""What a precision matrix holds: a cell for every component and precision, and what follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from converter.sizes import Size
from targets.compile import CompileRequest
from validate.base import EMULATOR_BUDGET, Result, Verdict, worst


@dataclass(frozen=True)
class MatrixRequest:
    """What to compare. Every cell is compiled and judged in a folder of its own below `output`.

    `precisions` and `components` None: all that there are. `floor` is the PSNR in dB that every
    component has to reach, None what its precision has to. `calibration` is that of a compilation,
    without which precisions that need it are left out. `emulator_budget` is in seconds a cell.

    Without `emulate` a chip's cells run in the compiler's interpreter, where it has one: it shows
    what a precision costs, in seconds, and not what the instructions do.
    """

    bundle: Path
    target: str
    sizes: tuple[Size, ...]
    output: Path = Path("matrix")
    components: tuple[str, ...] | None = None
    precisions: tuple[str, ...] | None = None
    floor: float | None = None
    calibration: Path | None = None
    batch: int | None = None
    emulator_budget: float = EMULATOR_BUDGET
    emulate: bool = False

    def cell(self, component: str, precision: str) -> CompileRequest:
        """The compilation of one cell."""
        return CompileRequest(
            bundle=self.bundle,
            target=self.target,
            sizes=self.sizes,
            output=self.output / f"{component}-{precision}",
            precision={component: precision},
            batch=self.batch,
            components=(component,),
            calibration=self.calibration,
        )

    def command(self) -> list[str]:
        """The command line that makes the same request."""
        words = ["sdconv", "matrix", "-n", str(self.bundle), "--target", self.target]
        words += ["--sizes", ",".join(map(str, self.sizes)), "-o", str(self.output)]
        for option, values in (
            ("--components", self.components),
            ("--precisions", self.precisions),
        ):
            words += [] if values is None else [option, ",".join(values)]
        words += [] if self.floor is None else ["--floor", f"{self.floor:g}dB"]
        words += [] if self.calibration is None else ["--calibration", str(self.calibration)]
        words += [] if self.batch is None else ["-b", str(self.batch)]
        if self.emulator_budget != EMULATOR_BUDGET:
            words += ["--emulator-budget", f"{self.emulator_budget / 60:g}"]
        return [*words, "--emulate"] if self.emulate else words


@dataclass(frozen=True)
class Cell:
    """One component in one precision. `results` are those of its sizes; none where it `failed`.

    `nbytes` is what its files take, `ms` what the compiler says of a run at the first size (None:
    it says nothing). `leads` says that no other cell of the component is better in one of quality,
    size and time, and worse in none.
    """

    component: str
    precision: str
    folder: Path
    results: Sequence[Result] = ()
    nbytes: int = 0
    ms: float | None = None
    failed: str = ""
    leads: bool = False

    @property
    def psnr_db(self) -> float | None:
        """The worst of all sizes and cases; None where there is no number."""
        levels = [check.psnr_db for result in self.results for check in result.checks
                  if check.measurement is not None]  # fmt: skip
        known = [level for level in levels if level is not None]
        return min(known) if known and len(known) == len(levels) else None

    @property
    def verdict(self) -> Verdict:
        """Fail where it could not be made; else the worst of its results."""
        return Verdict.FAIL if self.failed else worst([r.verdict for r in self.results])

    @property
    def sentence(self) -> str:
        """What decides, in words."""
        if self.failed:
            return self.failed
        decisive = max(self.results, key=lambda result: result.verdict.badness)
        return decisive.sentence

    def reaches(self, floor: float | None) -> bool:
        """Whether it is good enough: no failure, and the floor where one is given."""
        if self.psnr_db is None:
            return False
        if floor is None:
            return self.verdict is not Verdict.FAIL
        return self.psnr_db >= floor and not self.failed

    @property
    def price(self) -> tuple[float, int]:
        """Time, then bytes; for sorting."""
        return (0.0 if self.ms is None else self.ms, self.nbytes)


@dataclass(frozen=True)
class Matrix:
    """All cells, in the order of components and precisions.

    `left_out` says which precisions are not there, and why; `chosen` is the recommended precision
    of each component, and `lacking` has one line for each that reaches the floor in none.
    """

    request: MatrixRequest
    cells: Sequence[Cell]
    left_out: Mapping[str, str]
    created: str
    versions: Mapping[str, str]
    chosen: Mapping[str, str] = field(default_factory=dict)
    lacking: Sequence[str] = ()

    @property
    def components(self) -> list[str]:
        """In the order of the cells."""
        return list(dict.fromkeys(cell.component for cell in self.cells))

    @property
    def precisions(self) -> list[str]:
        """In the order of the cells."""
        return list(dict.fromkeys(cell.precision for cell in self.cells))

    def cell(self, component: str, precision: str) -> Cell:
        """One cell."""
        return next(c for c in self.cells if (c.component, c.precision) == (component, precision))

    @property
    def recommended(self) -> CompileRequest:
        """The compilation of the chosen precisions."""
        everything = self.request.components is None
        cell = self.request.cell(self.components[0], self.precisions[0])
        return replace(
            cell,
            output=Path("artifacts"),
            precision=dict(self.chosen),
            components=None if everything else tuple(self.components),
        )
