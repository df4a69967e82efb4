"""How long artifacts take on this machine: each runs alone, in a process of its own."""

import multiprocessing
import platform
import re
import signal
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from converter.bundle import Bundle
from converter.progress import Event, Progress
from converter.weights import Array
from runtime.latency import PictureTime, picture_times
from runtime.sampling import PictureRequest
from targets.base import Artifact, Target, ToolchainError
from targets.machine import Machine
from targets.manifest import Manifest
from targets.registry import get_target
from validate.inputs import make_case
from validate.references import References
from validate.scenes import scenes


@dataclass(frozen=True)
class Timing:
    """Milliseconds of every run but the first, which warms up.

    `peak` is the largest number of bytes in memory of the process that ran it, mapped weights,
    inputs and Python included; `cores_used` its processor time by the time that passed.
    """

    artifact: Artifact
    runs_ms: tuple[float, ...]
    peak: int
    cores_used: float

    @property
    def median_ms(self) -> float:
        """The median of the runs."""
        return statistics.median(self.runs_ms)


@dataclass(frozen=True)
class Measured:
    """What was measured on this machine, and the pictures that follow from the medians.

    `processor` is its name and `cores` how many of them this process may use; `sampling` and
    `lacking` as in `validate.latency.Latency`.
    """

    processor: str
    cores: int
    timings: Sequence[Timing]
    sampling: str
    pictures: Sequence[PictureTime]
    lacking: Sequence[str]


OpenTarget = Callable[[str], Target]


def measured_latency(
    manifest: Manifest,
    bundle: Bundle,
    request: PictureRequest,
    repeat: int,
    progress: Progress,
    open_target: OpenTarget = get_target,
) -> Measured | None:
    """Time the artifacts that are for no chip, and from them pictures; None without any."""
    here = replace(manifest, artifacts=[a for a in manifest.artifacts if a.chip is None])
    if not here.artifacts:
        return None
    timings = time_artifacts(here, bundle, repeat, progress, open_target)
    medians = {timing.artifact: timing.median_ms for timing in timings}
    pictures, lacking = picture_times(here, bundle, request, medians.get)
    cores = Machine.here().cores
    return Measured(processor_name(), cores, timings, request.sampling_sentence, pictures, lacking)


def time_artifacts(
    manifest: Manifest,
    bundle: Bundle,
    repeat: int,
    progress: Progress,
    open_target: OpenTarget = get_target,
) -> list[Timing]:
    """Run every artifact once to warm up, then `repeat` times.

    Inputs have the kind of values that the networks see in use; what only another network can
    compute is noise. Raises ToolchainError where one cannot be run.
    """
    timings = []
    for artifact in manifest.artifacts:
        progress(Event(f"time {artifact.label}", 0))
        inputs = _inputs(artifact, manifest, bundle)
        timings.append(_in_a_process(artifact, manifest.folder, inputs, repeat, open_target))
        progress(Event(f"time {artifact.label}", 1))
    return timings


def processor_name() -> str:
    """What the system calls this processor."""
    listed = Path("/proc/cpuinfo")
    found = listed.is_file() and re.search(r"model name\s*:\s*(.+)", listed.read_text())
    return found[1] if found else platform.processor() or platform.machine()


def _inputs(artifact: Artifact, manifest: Manifest, bundle: Bundle) -> Mapping[str, Array]:
    interface = manifest.interfaces[artifact.component]
    scene = scenes(artifact.component, interface)[0]
    shapes = interface.input_shapes(artifact.batch, artifact.size)
    known = References(bundle).origins()
    noise = replace(known, embed=None, encode=None, pool=None)
    return make_case(artifact.component, scene, interface, shapes, noise).inputs


def _in_a_process(
    artifact: Artifact,
    folder: Path,
    inputs: Mapping[str, Array],
    repeat: int,
    open_target: OpenTarget,
) -> Timing:
    """Time in a new process, which begins without what this one has in memory."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    arguments = (sender, artifact, folder, inputs, repeat, open_target)
    child = context.Process(target=_child, args=arguments, daemon=True)
    child.start()
    sender.close()
    try:
        outcome: Timing | ToolchainError = receiver.recv()
    except EOFError:
        child.join()
        raise ToolchainError(
            f"{artifact.path}: the process that ran it ended with exit code {child.exitcode}: "
            "is there enough memory?"
        ) from None
    finally:
        child.terminate()
        child.join()
    if isinstance(outcome, ToolchainError):
        raise outcome
    return outcome


def _child(
    sender: Connection,
    artifact: Artifact,
    folder: Path,
    inputs: Mapping[str, Array],
    repeat: int,
    open_target: OpenTarget,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    times = []
    try:
        with open_target(artifact.target).open(artifact, folder) as runner:
            runner.infer(inputs)
            begun, used = time.perf_counter(), time.process_time()
            for _ in range(repeat):
                started = time.perf_counter()
                runner.infer(inputs)
                times.append((time.perf_counter() - started) * 1e3)
            cores = (time.process_time() - used) / (time.perf_counter() - begun)
    except ToolchainError as e:
        sender.send(e)
    else:
        sender.send(Timing(artifact, tuple(times), _peak(), cores))


def _peak() -> int:
    """Most bytes in memory so far. Not `getrusage`: that counts the parent's before the start."""
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        assert found is not None
        return int(found[1]) * 1024
    import resource  # no such file on other systems, and no such module on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
