"""An order becomes the frozen requests that the command line makes, and its command lines."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from converter.adapters.choice import AdapterChoice
from converter.architecture import controlnet_name
from converter.embeddings.choice import EmbeddingChoice, checked_name
from converter.errors import InputError
from converter.export import ExportRequest
from converter.sizes import parse_sizes
from sdconv.page.order import COMPILE, EXPORT, Order
from sdconv.page.sources import KEPT, is_address
from targets.compile import CompileRequest, parse_precisions
from targets.registry import get_target
from validate.base import EMULATOR_BUDGET
from validate.validate import ValidateRequest

BUNDLE, ARTIFACTS, CALIBRATION = "bundle", "artifacts", "calibration"
"""The folders of a job in which its results lie."""

Locate = Callable[[str], Path]
"""From a source to its file."""


@dataclass(frozen=True)
class Requests:
    """The requests of one order, in the order in which they are run; None where it has no such."""

    order: Order
    export: ExportRequest | None
    compiles: tuple[CompileRequest, ...]
    validate: ValidateRequest | None

    @property
    def calibrated(self) -> CompileRequest | None:
        """The first compilation that wants calibration data, if one does."""
        return next((c for c in self.compiles if c.calibration is not None), None)

    def commands(self) -> list[str]:
        """The command lines that do the same. `sdconv compile` validates what it made."""
        commands = []
        if self.export is not None:
            form = [] if self.order.format == "onnx" else ["--format", self.order.format]
            commands.append([*self.export.command(), *form])
        if (first := self.calibrated) is not None:
            sizes = ",".join(map(str, first.sizes))
            words = ["sdconv", "calibrate", str(first.bundle), "--sizes", sizes]
            commands.append([*words, "-o", str(first.calibration)])
        compiling = [c.command() for c in self.compiles]
        if self.validate is not None:
            budget: list[str] = []
            if self.validate.emulator_budget != EMULATOR_BUDGET:
                budget = ["--emulator-budget", f"{self.validate.emulator_budget / 60:g}"]
            if len(compiling) == 1 and not self.order.prompt:
                compiling[0] += budget
            else:
                judge = ["sdconv", "validate", str(self.validate.artifacts), *budget]
                judge += ["--prompt", self.order.prompt] if self.order.prompt else []
                compiling = [*([*words, "--no-validate"] for words in compiling), judge]
        return [shlex.join(words) for words in (*commands, *compiling)]


def requests_of(order: Order, locate: Locate, folder: Path) -> Requests:
    """The requests of an order whose results go below `folder`; raises InputError."""
    if order.steps == COMPILE:
        return Requests(order, None, _compiles(order, folder), _validate(order, folder))
    export = _export(order, locate, folder)
    if order.steps == EXPORT:
        return Requests(order, export, (), None)
    return Requests(order, export, _compiles(order, folder), _validate(order, folder))


def shown_requests(order: Order) -> Requests:
    """The same for a visitor to read: files by their own names, results in folders beside them."""
    addresses = [source for source in order.sources() if is_address(source)]

    def locate(source: str) -> Path:
        if source in addresses:  # the command shows the address in its place
            return Path(f"address-{addresses.index(source)}-of-this-order")
        return Path(source.removeprefix(KEPT))

    return requests_of(order, locate, Path())


def _export(order: Order, locate: Locate, folder: Path) -> ExportRequest:
    if not order.checkpoint and not order.parts:
        raise InputError("no checkpoint is chosen: upload one, or choose a file on the server")
    checkpoint = locate(order.checkpoint) if order.checkpoint else None
    nets = {controlnet_name(i): source for i, source in enumerate(order.controlnets)}
    return ExportRequest(
        checkpoint=checkpoint,
        output=folder / BUNDLE,
        adapters=tuple(_adapter(locate(source), scales) for source, scales in order.loras),
        profile=order.profile or ExportRequest.profile,
        batch=order.batch,
        components=order.components or None,
        allow_unused=order.allow_unused,
        prediction=order.prediction or None,
        zero_terminal_snr=order.zero_terminal_snr,
        parts={part: locate(source) for part, source in {**order.parts, **nets}.items()},
        variant=order.variant or None,
        ema=order.ema,
        controlnet_base=locate(order.controlnet_base) if order.controlnet_base else None,
        clip_skip=order.clip_skip,
        embeddings=tuple(_embedding(locate(source), name) for source, name in order.embeddings),
        addresses={locate(s): s for s in order.sources() if is_address(s)},
    )


def _adapter(path: Path, scales: str) -> AdapterChoice:
    """A LoRA with scales as ``-l`` takes them; raises InputError for others."""
    return AdapterChoice.parse(f"LoRA:{scales}", lambda _: path) if scales else AdapterChoice(path)


def _embedding(path: Path, name: str) -> EmbeddingChoice:
    return EmbeddingChoice(path, checked_name(name) if name else None)


def _compiles(order: Order, folder: Path) -> tuple[CompileRequest, ...]:
    if not order.targets:
        raise InputError("no target is chosen: choose one that is ready")
    sizes = parse_sizes(order.sizes)
    requests = []
    for name in dict.fromkeys(order.targets):
        target = get_target(name)
        precision = parse_precisions(order.precision.get(name, ""))
        known = [p for p in precision.values() if p in target.precisions]
        calibrated = any(target.needs_calibration(p, None) for p in known)
        requests.append(
            CompileRequest(
                bundle=folder / BUNDLE,
                target=name,
                sizes=sizes,
                output=folder / ARTIFACTS,
                precision=precision,
                batch=order.batch if order.steps == COMPILE else None,  # else the bundle's own
                components=order.components or None,
                effort=order.effort,
                calibration=folder / CALIBRATION if calibrated else None,
            )
        )
    return tuple(requests)


def _validate(order: Order, folder: Path) -> ValidateRequest:
    minutes = order.emulator_minutes
    return ValidateRequest(folder / ARTIFACTS, emulator_budget=minutes * 60)
