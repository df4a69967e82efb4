"""What a compiled program says of itself, beside its library: ports and parameters in order."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from targets.driver import PortAt
from targets.tvm.parameters import Parameter, Step

PROGRAM_FILE = "program.json"


@dataclass(frozen=True)
class HostOperator:
    """A function of the host, from one tensor to one: see `targets.tvm.host_operator`.

    `operations` is what of the program's own it does, `memory` the bytes of its tensors at most.
    """

    takes: PortAt
    gives: PortAt
    operations: int
    memory: int

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "HostOperator":
        """Read what `dataclasses.asdict` wrote."""
        ports = {name: PortAt.from_json(data[name]) for name in ("takes", "gives")}
        return cls(**{**data, **ports})


@dataclass(frozen=True)
class Program:
    """The tensors that a library's `main` takes and gives.

    It takes `inputs`, then `parameters`; `constants` are the weights of CLML's graphs. `operations`
    are the additions and multiplications of one run's convolutions and matrix products. Its tensors
    take `activations` bytes at most, and those inside of one of CLML's graphs `pool` more. `host`
    is what it has the host compute.
    """

    inputs: tuple[PortAt, ...]
    outputs: tuple[PortAt, ...]
    parameters: tuple[Parameter, ...]
    constants: tuple[Parameter, ...]
    operations: int
    activations: int
    pool: int
    host: HostOperator | None = None

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), separators=(",", ":")))

    @classmethod
    def load(cls, path: Path) -> "Program":
        """Read what `save` wrote."""
        data: dict[str, Any] = json.loads(path.read_text())
        return cls(
            tuple(PortAt.from_json(port) for port in data["inputs"]),
            tuple(PortAt.from_json(port) for port in data["outputs"]),
            tuple(_parameter(record) for record in data["parameters"]),
            tuple(_parameter(record) for record in data["constants"]),
            data["operations"],
            data["activations"],
            data["pool"],
            HostOperator.from_json(data["host"]) if data.get("host") else None,
        )


def ports_of(values: Sequence[ir.Value]) -> tuple[PortAt, ...]:
    """Inputs or outputs of a graph of one size."""
    ports = []
    for value in values:
        assert value.name and value.dtype is not None and value.shape is not None
        ports.append(PortAt(value.name, value.dtype.numpy().name, tuple(value.shape.numpy())))
    return tuple(ports)


def _parameter(record: dict[str, Any]) -> Parameter:
    steps = tuple(Step(step["kind"], tuple(step["values"])) for step in record["steps"])
    return Parameter(**{**record, "steps": steps, "shape": tuple(record["shape"])})


def operations_of(model: ir.Model) -> int:
    """Additions and multiplications of a graph's convolutions and matrix products."""
    return sum(2 * math.prod(_extents(node.outputs[0])) * _summed(node) for node in model.graph)


def _summed(node: ir.Node) -> int:
    """How many products each number of a node's output is the sum of; 0 for other operators."""
    if node.op_type == "Conv":
        return math.prod(_extents(node.inputs[1])[1:])
    if node.op_type == "MatMul":
        return _extents(node.inputs[0])[-1]
    if node.op_type == "Gemm":
        turned = node.attributes.get("transA")
        return _extents(node.inputs[0])[0 if turned and turned.as_int() else 1]
    return 0


def _extents(value: ir.Value | None) -> tuple[int, ...]:
    assert value is not None and value.shape is not None
    return tuple(value.shape.numpy())
