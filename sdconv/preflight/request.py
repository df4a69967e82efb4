"""What a plan is asked for, and the plan itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from converter.cost import Cost
from converter.export import ExportRequest
from converter.sizes import Size
from targets.machine import Disk, Machine


@dataclass(frozen=True)
class PlanRequest:
    """What would be exported and compiled.

    `export` writes the bundle; its `components` None takes all that the files hold, and `profile`
    None replaces its profile by the one that fits target and family. Artifacts go below `output`.
    """

    export: ExportRequest
    target: str
    sizes: tuple[Size, ...]
    output: Path = Path()
    profile: str | None = None
    precision: Mapping[str, str] = field(default_factory=dict)
    effort: str = "normal"

    @property
    def artifacts(self) -> Path:
        """The folder that the compilation would write."""
        return self.output / "artifacts"


@dataclass(frozen=True)
class Step:
    """One line of a plan: a verb, what it works on, and what that costs.

    Verbs are those of the commands, ``trace`` for a template that has to be made, ``gather`` for
    linked weights that a compilation writes to one file, ``bind`` and ``judge``, its end, and
    ``start``, of no component: the start-up of all commands together. A `reused` step finds its
    result there; its cost is that of finding it.
    """

    verb: str
    component: str
    size: Size | None
    precision: str
    cost: Cost
    reused: bool = False

    @property
    def spare(self) -> bool:
        """Whether it judges what an emulator has no time for, and is left out if it does not fit.

        Only for that a lowered network has to be made first.
        """
        return self.verb == "judge" and self.cost.temporary > 0

    @property
    def label(self) -> str:
        """In a user's words: ``compile unet 512x512 f16``."""
        words = (self.verb, self.component, self.size, self.precision)
        return " ".join(str(word) for word in words if word)


@dataclass(frozen=True)
class Need:
    """The most that a sequence of steps needs at once, and what it leaves behind.

    `memory` in bytes; `output` and `cache` are the bytes that must be free on the disks of the
    output folder and of the cache folder (all on `output` where these are one disk); `kept` is
    what stays of both, `temporary` the most that is removed again; `seconds` is the sum.
    """

    memory: int
    output: int
    cache: int
    kept: int
    temporary: int
    seconds: float


@dataclass(frozen=True)
class Here:
    """What this machine has for the plan. `missing` are the reasons why it cannot start yet."""

    machine: Machine
    output: Disk
    cache: Disk
    missing: Sequence[str]

    @property
    def one_disk(self) -> bool:
        """Whether output and cache share a disk, so that a hard link takes no room."""
        return self.output.device == self.cache.device


@dataclass(frozen=True)
class Plan:
    """The answer: steps in order, their sum, this machine, what stands in the way, what to type.

    `adapters` say of each LoRA how it fits and what it adds. `problems` is empty when it can be
    done; each is one line with what would help. `notes` say what a user should know besides.
    `commands` are argument lists; where a part of the model is missing, they hold the word FILE.
    """

    request: PlanRequest
    profile: str
    steps: Sequence[Step]
    need: Need
    here: Here
    adapters: Sequence[str]
    problems: Sequence[str]
    notes: Sequence[str]
    commands: Sequence[Sequence[str]]

    @property
    def possible(self) -> bool:
        """Whether this machine can do it as things are."""
        return not self.problems


def need_of(steps: Sequence[Step], *, one_disk: bool) -> Need:
    """Sum up steps that run one after the other."""
    output = cache = temporary = peak_output = peak_cache = 0
    for step in steps:
        cost = step.cost
        output += cost.written
        cache += cost.cached
        temporary = max(temporary, cost.temporary)
        peak_cache = max(peak_cache, cache + cost.temporary)
        peak_output = max(peak_output, output + (cache + cost.temporary if one_disk else 0))
    return Need(
        memory=max((step.cost.memory for step in steps), default=0),
        output=peak_output,
        cache=0 if one_disk else peak_cache,
        kept=output + cache,
        temporary=temporary,
        seconds=sum(step.cost.seconds for step in steps),
    )
