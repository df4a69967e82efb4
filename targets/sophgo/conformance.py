"""Whether a set of bmodels loads as its consumer loads it; every line says what does not.

A consumer takes the first network of a file, tells its stages apart by the shape of input 0, binds
every port by its position, and knows its shape and dtype beforehand.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from converter.architecture import Architecture
from converter.bundle import Bundle
from converter.errors import InputError
from converter.families.controlnet import is_controlnet
from converter.interface import resolve
from targets.base import Artifact, Conformance, ToolchainError
from targets.driver import PortAt
from targets.sophgo.consumers import CONSUMERS, MOST_PORTS, MOST_STAGES, Slot, Table, links
from targets.sophgo.ports import FilePorts, StagePorts, read_ports
from targets.sophgo.toolchain import TpuMlir

Shape = tuple[int, ...]


@dataclass(frozen=True)
class _File:
    """A file of the set: what was asked of it, what it must be like, what is in it.

    `names` are the input names that it was compiled with, in order.
    """

    artifacts: Sequence[Artifact]
    table: Table
    names: Sequence[str]
    ports: FilePorts

    @property
    def stages(self) -> Sequence[StagePorts]:
        """Those of the first network: no consumer looks further."""
        return next(iter(self.ports.networks.values()))

    @property
    def asked(self) -> dict[Shape, Artifact]:
        """The shape of input 0 -> the artifact that is the stage for it."""
        return {_at(self.table[0][0], artifact): artifact for artifact in self.artifacts}

    @property
    def by_shape(self) -> dict[Shape, StagePorts]:
        """The stage that a consumer finds for each shape of input 0."""
        return {stage.inputs[0].shape: stage for stage in self.stages if stage.inputs}


def check_set(
    bundle: Bundle, artifacts: Sequence[Artifact], folder: Path, toolchain: TpuMlir
) -> list[Conformance]:
    """Check every file of a target's artifacts; nothing where the profile has no such consumer."""
    if bundle.profile not in CONSUMERS:
        return []
    architecture = Architecture.from_json(bundle.architecture)
    by_path: dict[str, list[Artifact]] = {}
    for artifact in artifacts:
        by_path.setdefault(artifact.path, []).append(artifact)
    files: dict[str, _File] = {}
    results: list[Conformance] = []
    for path, mine in by_path.items():
        component = mine[0].component
        table = CONSUMERS[bundle.profile](component, architecture)
        names = [port.name for port in bundle.components[component].interface.inputs]
        try:
            ports = read_ports(toolchain, folder / path)
        except (InputError, ToolchainError) as e:
            results.append(_result(mine[0], bundle.profile, "no reader", (str(e),)))
        else:
            files[component] = _File(mine, table, names, ports)
    for component, file in files.items():
        faults = list(_faults(file))
        if is_controlnet(component) and "unet" in files and not faults:
            faults += _link_faults(file, files["unet"])
        results.append(_result(file.artifacts[0], bundle.profile, file.ports.reader, tuple(faults)))
    return results


def _result(artifact: Artifact, consumer: str, reader: str, faults: tuple[str, ...]) -> Conformance:
    return Conformance(artifact.component, artifact.target, artifact.path, consumer, reader, faults)


def _faults(file: _File) -> Iterator[str]:
    """Everything that is wrong with one file by itself."""
    asked = file.asked
    first: dict[Shape, int] = {}
    for number, stage in enumerate(file.stages):
        shape = stage.inputs[0].shape if stage.inputs else ()
        if shape in first:
            yield (
                f"stages {first[shape]} and {number} both take {_list(shape)} at input 0, by which "
                "stages are told apart"
            )
        elif shape not in asked:
            yield f"stage {number} takes {_list(shape)} at input 0, which no size asked for has"
        else:
            for line in _stage_faults(stage, file, asked[shape]):
                yield f"stage {number} ({asked[shape].size or 'any size'}): {line}"
        first.setdefault(shape, number)
    for shape, artifact in asked.items():
        if shape not in first:
            name = next(iter(file.ports.networks))
            yield (
                f"no stage of its first network ({name}) takes {_list(shape)} at input 0, which "
                f"is {artifact.size or 'what was asked for'}"
            )
    if len(file.stages) > MOST_STAGES:
        yield f"{len(file.stages)} stages, and a host has room for {MOST_STAGES}"


def _stage_faults(stage: StagePorts, file: _File, artifact: Artifact) -> Iterator[str]:
    """What a consumer finds at another place, in another shape or dtype, than it binds."""
    inputs, outputs = file.table
    if len(stage.inputs) != len(inputs):
        yield f"{len(stage.inputs)} inputs, and {len(inputs)} are bound"
    if len(stage.outputs) < len(outputs):
        yield f"{len(stage.outputs)} outputs, and {len(outputs)} are read"
    if max(len(stage.inputs), len(stage.outputs)) > MOST_PORTS:
        yield f"more than {MOST_PORTS} ports on a side, for which a host has no room"
    for side, slots, ports in (
        ("input", inputs, stage.inputs),
        ("output", outputs, stage.outputs),
    ):
        for place, (slot, port) in enumerate(zip(slots, ports, strict=False)):
            shape = _at(slot, artifact)
            if port.dtype not in slot.dtypes or port.shape != shape:
                yield (
                    f"{side} {place} is {_say(port)}, where the {slot.role} is "
                    f"{' or '.join(slot.dtypes)} {_list(shape)}"
                )
    found = [port.name for port in stage.inputs]
    for place, (mine, wanted) in enumerate(zip_longest(found, file.names)):
        if mine != wanted:
            yield f"input {place} is called {mine}, and {wanted} was compiled to be there"
            break


def _link_faults(controlnet: _File, unet: _File) -> Iterator[str]:
    """Where the bytes of a ControlNet are not those that the UNet takes."""
    theirs = unet.by_shape
    for shape, stage in controlnet.by_shape.items():
        if shape not in theirs:
            yield f"the UNet has no stage for {_list(shape)} at input 0, and this file has"
            continue
        for side, place, there in links(controlnet.table, unet.table):
            if there >= len(theirs[shape].inputs):
                continue  # the UNet's own line says that it has too few
            port = (stage.inputs if side == "input" else stage.outputs)[place]
            other = theirs[shape].inputs[there]
            if (port.dtype, port.shape) != (other.dtype, other.shape):
                yield (
                    f"{side} {place} is {_say(port)}, and input {there} of the UNet, which uses "
                    f"the same bytes, is {_say(other)}"
                )
    for shape in theirs.keys() - controlnet.by_shape.keys():
        yield f"the UNet has a stage for {_list(shape)} at input 0, and this file has none"


def _at(slot: Slot, artifact: Artifact) -> Shape:
    return tuple(resolve(dim, artifact.batch, artifact.size) for dim in slot.shape)


def _say(port: PortAt) -> str:
    return f"{port.dtype} {_list(port.shape)}"


def _list(shape: Shape) -> str:
    return str(list(shape))
