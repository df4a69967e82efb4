"""What was done about a component that failed, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """Bytes of an artifact's file, and milliseconds of a run by the compiler, if it says any."""

    nbytes: int
    ms: float | None


@dataclass(frozen=True)
class Repair:
    """One component of one target. `cause` says what was found, `kept` what is kept how.

    `table` is the compiler's table that does it; None where nothing helped, and `outcome` says why.
    """

    component: str
    target: str
    precision: str
    cause: str
    kept: Sequence[str]
    kept_in: str
    operations: int
    trials: int
    seconds: float
    outcome: str
    psnr_before: float | None = None
    psnr_after: float | None = None
    table: Path | None = None
    before: Cost | None = None
    after: Cost | None = None

    @property
    def label(self) -> str:
        """In a user's words: ``vae_decoder f16 on bm1684x``."""
        return f"{self.component} {self.precision} on {self.target}"

    @property
    def sentence(self) -> str:
        """All of it in words."""
        if self.table is None:
            return f"{self.label}: {self.cause}; not rescued: {self.outcome}"
        levels = [
            "no number" if level is None else f"{level:.1f} dB"
            for level in (self.psnr_before, self.psnr_after)
        ]
        return (
            f"{self.label}: {self.cause}; {len(self.kept)} of {self.operations} operations kept in "
            f"{self.kept_in} ({', '.join(self.kept)}): {levels[0]} to {levels[1]} in the "
            f"compiler's interpreter{self._price()}; {self.trials} trials in {self.seconds:.0f} s"
        )

    def _price(self) -> str:
        if self.before is None or self.after is None:
            return ""
        more = (self.after.nbytes - self.before.nbytes) / 1e3
        words = f", {more:+.1f} kB"
        if self.before.ms is not None and self.after.ms is not None:
            words += f", {self.before.ms:.3f} to {self.after.ms:.3f} ms a run"
        return words
