"""The networks of a bmodel and their ports: as the vendor's own tool tells them, or our reader."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from targets.base import ToolchainError
from targets.driver import PortAt
from targets.sophgo.bmodel.reading import read_bmodel, stages
from targets.sophgo.bmodel.schema import Model, Tensor
from targets.sophgo.toolchain import TpuMlir

DTYPES = (
    "float32", "float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "bfloat16", "int4",
    "uint4",
)  # fmt: skip
"""By number in the file (bm_data_type_t of the vendor's runtime); model_tool calls them so too."""

_NETWORK = re.compile(r"net \d+: \[(.*)\]")
_STAGE = re.compile(r"stage \d+\b")
_PORT = re.compile(r"(input|output): (.*), \[([\d, ]*)\], (\w+), scale: ")


@dataclass(frozen=True)
class StagePorts:
    """The ports of one stage, by position."""

    inputs: tuple[PortAt, ...]
    outputs: tuple[PortAt, ...]


@dataclass(frozen=True)
class FilePorts:
    """The stages of every network in a file, in the file's order, and who read it."""

    reader: str
    networks: Mapping[str, Sequence[StagePorts]]


def read_ports(toolchain: TpuMlir, bmodel: Path) -> FilePorts:
    """Ask the vendor's model_tool; where the toolchain is not installed, read the tables here.

    Raises ToolchainError or InputError for what is no readable bmodel.
    """
    name = f"{toolchain.name} {toolchain.version}"
    if toolchain.problem() is None:
        reader, networks = f"model_tool of {name}", parse_info(toolchain.describe(bmodel))
    else:
        reader = f"sdconv's own reader, for {name} is not installed here"
        networks = ports_of(read_bmodel(bmodel).model)
    if not networks:
        raise ToolchainError(f"{bmodel}: {reader} finds no network in it: compile it again")
    return FilePorts(reader, networks)


def parse_info(text: str) -> dict[str, list[StagePorts]]:
    """Read the output of ``model_tool --info``."""
    networks: dict[str, list[StagePorts]] = {}
    for line in text.splitlines():
        if network := _NETWORK.match(line):
            networks[network[1]] = []
        elif networks and _STAGE.match(line):
            next(reversed(networks.values())).append(StagePorts((), ()))
        elif port := _PORT.match(line):
            side, name, dims, dtype = port.groups()
            found = PortAt(name, dtype, tuple(int(dim) for dim in dims.split(",") if dim.strip()))
            mine = next(reversed(networks.values()))
            inputs, outputs = mine[-1].inputs, mine[-1].outputs
            if side == "input":
                mine[-1] = StagePorts((*inputs, found), outputs)
            else:
                mine[-1] = StagePorts(inputs, (*outputs, found))
    return networks


def ports_of(model: Model) -> dict[str, list[StagePorts]]:
    """The same from the file's tables."""
    networks: dict[str, list[StagePorts]] = {}
    for name, stage in stages(model):
        ports = StagePorts(
            tuple(map(_port, stage.input_tensor)), tuple(map(_port, stage.output_tensor))
        )
        networks.setdefault(name, []).append(ports)
    return networks


def _port(tensor: Tensor) -> PortAt:
    known = tensor.data_type < len(DTYPES)
    dtype = DTYPES[tensor.data_type] if known else f"type {tensor.data_type}"
    return PortAt(tensor.name, dtype, tensor.shape[0].dim if tensor.shape else ())
