"""The contract of validation: cases go in, measurements come out, a judge rules on them.

Running and judging are two steps that meet on disk: `validate.run` saves what an artifact and the
reference gave for the same `Case`; a `Judge` only ever sees a `Measurement` of the two. A new
level of comparison (one layer, a whole trajectory, the final picture) is a new `Judge` with its
own measurements, and lands in the same `Result`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from converter.sizes import Size
from converter.weights import Array
from targets.base import Conformance, Placement
from validate.latency import Latency

if TYPE_CHECKING:
    from validate.attribution import Attribution
    from validate.baseline import Comparison
    from validate.rescue.repair import Repair

EMULATOR_BUDGET = 600.0
"""Seconds that one artifact may take on an emulator, unless the user says otherwise."""


class Level(StrEnum):
    """What is compared: the ways to look at artifacts, each of which can be asked for alone."""

    EXPORT = "export"
    """The bundle against the files it was made from, and its graphs against baked constants."""
    COMPONENT = "component"
    """Every output of every artifact, on inputs that look real."""
    LAYER = "layer"
    """The tensors inside, along the depth of the network: where it parts from torch."""
    TRAJECTORY = "trajectory"
    """The latents of every step of the sampling loop, from the same noise."""
    PICTURE = "picture"
    """What all components draw together."""


TOGETHER = (Level.TRAJECTORY, Level.PICTURE)
"""The levels of results that all components have together."""


class Verdict(StrEnum):
    """Whether artifacts may be trusted. INCOMPLETE: nothing is wrong so far, not all was run."""

    PASS = "pass"  # noqa: S105  (no password)
    FAIL = "fail"
    INCOMPLETE = "incomplete"

    @property
    def badness(self) -> int:
        """For sorting: fail 2, incomplete 1, pass 0."""
        return [Verdict.PASS, Verdict.INCOMPLETE, Verdict.FAIL].index(self)


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of the whole; nothing at all is INCOMPLETE, never PASS."""
    return max(verdicts, key=lambda verdict: verdict.badness, default=Verdict.INCOMPLETE)


@dataclass(frozen=True)
class Case:
    """One set of inputs by port name, of the interface's shapes and dtypes."""

    name: str
    about: str
    inputs: Mapping[str, Array]


@dataclass(frozen=True)
class Agreement:
    """The numbers of `validate.metrics`, which has their formulas."""

    max_abs_error: float
    cosine: float
    psnr_db: float
    sqnr_db: float
    gain: float


@dataclass(frozen=True)
class Measurement:
    """How far an output is from the reference's.

    `agreement` is None when there is nothing that numbers could describe; `problem` then says why
    in words, and no judge lets it pass. `peak` is max |reference|, `count` the number of values,
    `ssim` the structural similarity where the two are pictures.
    """

    nan: int
    inf: int
    count: int
    peak: float
    agreement: Agreement | None
    problem: str | None = None
    ssim: float | None = None


@dataclass(frozen=True)
class Threshold:
    """What a precision must reach. `reason` says where the numbers come from.

    `psnr_db` and `cosine` are floors, `expected_db` the PSNR usually seen, `gain` the largest
    |gain - 1|, where that is asked. `max_abs_error`, where given, holds at a reference peak up to 1
    and grows in proportion to larger peaks.
    """

    precision: str
    psnr_db: float
    expected_db: float
    cosine: float
    gain: float | None
    max_abs_error: float | None
    reason: str
    overridden: bool = False
    """Whether a recipe put its own numbers in the place of the usual ones."""

    def allowed_error(self, peak: float) -> float | None:
        """The largest absolute error at that reference peak."""
        return None if self.max_abs_error is None else self.max_abs_error * max(1.0, peak)


@dataclass(frozen=True)
class Ruling:
    """A verdict and the sentence that explains it."""

    verdict: Verdict
    sentence: str


class Judge(ABC):
    """Turns a measurement into a ruling. `level` says what was compared."""

    level: Level

    @abstractmethod
    def threshold(self, component: str, precision: str) -> Threshold:
        """What will be asked; raises InputError for a precision without thresholds."""

    @abstractmethod
    def rule(self, measurement: Measurement, threshold: Threshold) -> Ruling:
        """PASS or FAIL; FAIL whenever something could not be measured."""


class Link(StrEnum):
    """What of an artifact was run: itself, or what its instructions were made from."""

    ARTIFACT = "artifact"
    LOWERED = "lowered network"


@dataclass(frozen=True)
class Check:
    """One output in one case. `measurement` is None when the case was not run (or broke).

    `saved` and `reference` are the files of arrays that were compared, `link` says of what.
    `position` is the place along the depth of a network or the steps of a trajectory, from 0.
    """

    case: str
    about: str
    output: str
    ruling: Ruling
    measurement: Measurement | None = None
    seconds: float | None = None
    saved: Path | None = None
    reference: Path | None = None
    link: Link = Link.ARTIFACT
    position: int | None = None

    @property
    def psnr_db(self) -> float | None:
        """The PSNR, where there is one."""
        agreement = None if self.measurement is None else self.measurement.agreement
        return None if agreement is None else agreement.psnr_db


@dataclass(frozen=True)
class Sight:
    """What a recogniser sees in one picture. `score` runs from 0 to 1: how sure it is.

    `right` says whether that is what the prompt asks for.
    """

    right: bool
    score: float
    words: str


@dataclass(frozen=True)
class Recognition:
    """What a recogniser sees in the pictures of an artifact (`mine`) and of the reference."""

    ruling: Ruling
    prompts: Sequence[str]
    mine: Sequence[Sight]
    reference: Sequence[Sight]


@dataclass(frozen=True)
class Result:
    """One artifact at one level: its checks, worst first.

    `blame` says in one sentence where it goes wrong, as far as that was looked for.
    """

    component: str
    target: str
    chip: str | None
    size: Size | None
    batch: int
    precision: str
    level: Level
    path: str
    threshold: Threshold
    checks: Sequence[Check]
    note: str
    blame: str = ""
    recognition: Recognition | None = None

    @property
    def worst(self) -> Check:
        """The check that decides."""
        return self.checks[0]

    @property
    def verdict(self) -> Verdict:
        """The worst of all checks, and of what a recogniser says."""
        seen = [] if self.recognition is None else [self.recognition.ruling]
        return worst([ruling.verdict for ruling in (*self.rulings, *seen)])

    @property
    def rulings(self) -> list[Ruling]:
        """Those of all checks."""
        return [check.ruling for check in self.checks]

    @property
    def sentence(self) -> str:
        """What decides, in words."""
        if self.recognition is not None and self.verdict is not self.worst.ruling.verdict:
            return self.recognition.ruling.sentence
        return self.worst.ruling.sentence

    @property
    def in_order(self) -> list[Check]:
        """The checks that have a place, along the depth or the steps."""
        placed = [check for check in self.checks if check.position is not None]
        return sorted(placed, key=lambda check: check.position or 0)

    @property
    def label(self) -> str:
        """In a user's words: ``unet 512x512 f16 on bm1684x``."""
        if self.level == Level.EXPORT:
            return f"{self.component} as exported"
        parts = (self.component, self.size, self.precision, "on", self.target)
        return " ".join(str(part) for part in parts if part)


@dataclass(frozen=True)
class Report:
    """Everything a validation found out: what the HTML, the JSON and the terminal show.

    `versions` are by the step they belong to (export, compile, validate), then by package.
    `latency` is None where no compiler predicts any.
    """

    artifacts: Path
    bundle: Path
    results: Sequence[Result]
    sources: Sequence[Mapping[str, object]]
    adapters: Sequence[Mapping[str, object]]
    versions: Mapping[str, Mapping[str, str]]
    commands: Sequence[str]
    created: str
    latency: Latency | None = None
    conformance: Sequence[Conformance] = ()
    attributions: Sequence[Attribution] = ()
    repairs: Sequence[Repair] = ()
    comparison: Comparison | None = None
    recipe: str = ""
    placements: Mapping[str, Placement] = field(default_factory=dict)
    """By artifact and target in words, where a vendor's library runs a part of the network."""
    unproven: Mapping[str, str] = field(default_factory=dict)
    """By target: what the verdict says nothing about."""

    @property
    def verdict(self) -> Verdict:
        """The worst of all results; FAIL if a file would not load in its consumer."""
        if any(file.faults for file in self.conformance):
            return Verdict.FAIL
        return worst([result.verdict for result in self.results])

    def count(self, verdict: Verdict) -> int:
        """How many results have that verdict."""
        return sum(result.verdict is verdict for result in self.results)

    @property
    def overridden(self) -> list[Threshold]:
        """The thresholds that a recipe replaced."""
        return list(dict.fromkeys(r.threshold for r in self.results if r.threshold.overridden))

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        failed, open_ = self.count(Verdict.FAIL), self.count(Verdict.INCOMPLETE)
        unloaded = sum(bool(file.faults) for file in self.conformance)
        wrong = []
        if failed:
            wrong.append(f"{self._share(Verdict.FAIL)} do not agree with the fp32 reference")
        if unloaded:
            wrong.append(
                f"{unloaded} of {len(self.conformance)} files would not load in their consumer"
            )
        if wrong:
            return "; ".join(wrong)
        passed = f"{self._share(Verdict.PASS)} agree with the fp32 reference"
        if open_ or not self.results:
            return f"{passed}; {open_} not fully run, so this is not a pass"
        own = ", some of them the recipe's own" if self.overridden else ""
        return f"{passed} within their thresholds{own}"

    def _share(self, verdict: Verdict) -> str:
        """How many results of each level have that verdict, of those levels that were looked at."""
        parts = [
            f"{sum(r.verdict is verdict for r in mine)} of {len(mine)} {what[len(mine) != 1]}"
            for level, what in COUNTED.items()
            if (mine := [r for r in self.results if r.level == level])
        ]
        *before, last = parts or ["0 of 0 artifacts"]
        return f"{', '.join(before)} and {last}" if before else last


COUNTED = {
    Level.COMPONENT: ("artifact", "artifacts"),
    Level.PICTURE: ("picture", "pictures"),
    Level.TRAJECTORY: ("trajectory", "trajectories"),
    Level.LAYER: ("network inside", "networks inside"),
    Level.EXPORT: ("export", "exports"),
}
"""What the results of each level are called in the verdict."""
