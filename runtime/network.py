"""One component that can be run, whatever runs it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from converter.interface import Interface
from converter.weights import Array
from targets.base import Runner


@dataclass(frozen=True)
class Network:
    """A component that can be run: its ports, and the batch it was compiled for (None: any)."""

    runner: Runner
    interface: Interface
    batch: int | None

    def __call__(self, *inputs: Array) -> list[Array]:
        """Run on inputs in the order of the ports; outputs in the order of theirs.

        Inputs have the same number of rows, however many, except a timestep [1]. Rows are run
        in parts of the compiled batch; the last part is filled up by repeating its last row.
        """
        rows = len(inputs[0])
        batch = self.batch or rows
        parts = [self._run(inputs, range(first, first + batch)) for first in range(0, rows, batch)]
        return [np.concatenate(outputs)[:rows] for outputs in zip(*parts, strict=True)]

    def by_name(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """Run on those of `given` that have a port; outputs by name."""
        outputs = self(*(given[port.name] for port in self.interface.inputs))
        return {p.name: a for p, a in zip(self.interface.outputs, outputs, strict=True)}

    def _run(self, inputs: Sequence[Array], rows: range) -> list[Array]:
        given = {}
        for port, array in zip(self.interface.inputs, inputs, strict=True):
            mine = array if port.shape == (1,) else array[[min(r, len(array) - 1) for r in rows]]
            given[port.name] = np.ascontiguousarray(mine, port.dtype)
        outputs = self.runner.infer(given)
        return [outputs[port.name] for port in self.interface.outputs]
