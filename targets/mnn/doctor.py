"""Proof that MNN works here: the micro network converted, its weights bound, and run."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from converter.progress import Event, Progress, silent
from converter.weights import Array, TensorSpec
from passes.linked_weights import read_graph
from targets.base import CompileJob, Skeleton, ToolchainError
from targets.micro_network import MicroNetwork, write_micro_network
from targets.mnn.binding import bind
from targets.mnn.conversion import convert_graph, unbound
from targets.mnn.precisions import PRECISIONS
from targets.mnn.runner import MnnRunner, Session
from targets.mnn.toolchain import Mnn, runtime_python
from targets.toolchains import Proof

TOLERANCES = {
    "f32": 1e-5,  # another order of summation, nothing else
    "f16": 1e-3,  # weights of 11 bits
    "w8": 1e-2,  # weights in 255 steps of 6 deviations: 0.7 % of their own
    "w8a8": 2e-2,  # and what they are multiplied by
    "w4": 0.2,  # weights in 15 steps: 12 % of their deviation
}
"""Largest relative error (2-norm) of the answer. The other precisions take the same ways."""


def prove(toolchain: Mnn, progress: Progress) -> list[Proof]:
    """Convert the micro network with placeholders, bind its weights and run it, per precision."""
    stage = f"check {toolchain.name} {toolchain.version}"
    proofs = []
    for done, precision in enumerate(TOLERANCES):
        progress(Event(stage, done / len(TOLERANCES)))
        proofs.append(_try(toolchain, precision))
    progress(Event(stage, 1.0))
    return proofs


class _Weights:
    """The micro network's, as a `WeightSource`."""

    key, file = "micro", None

    def __init__(self, network: MicroNetwork) -> None:
        self._values = network.values
        self.tensor_keys = dict.fromkeys(network.values, "")

    def names(self) -> Sequence[str]:
        return list(self._values)

    def spec(self, name: str) -> TensorSpec:
        return TensorSpec(self._values[name].shape, "float32")

    def read(self, name: str) -> Array:
        return self._values[name]

    def forget(self, name: str) -> None:
        del name


def _try(toolchain: Mnn, name: str) -> Proof:
    what, precision = f"convolution and matrix product, bound, {name}", PRECISIONS[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        network = write_micro_network(folder)
        shapes = (("picture", network.picture.shape),)
        job = CompileJob("micro", network.graph, "", shapes, None, 1, name)
        made = folder / "skeleton"
        made.mkdir()
        try:
            graph = read_graph(network.graph)
            convert_graph(toolchain, job, precision, graph, None, made, silent)
            if reason := unbound(made):
                return Proof(what, works=False, detail=reason)
            skeleton = Skeleton(job, "micro", made, None, None, False, "")
            bind(skeleton, precision, _Weights(network), folder / "micro.mnn", silent)
            session = Session(runtime_python(toolchain), dynamic=precision.dynamic)
            with MnnRunner(toolchain, session, folder / "micro.mnn") as runner:
                answer = runner.infer({"picture": network.picture})["product"]
        except ToolchainError as e:
            return Proof(what, works=False, detail=str(e))
    error = float(np.linalg.norm(answer - network.product) / np.linalg.norm(network.product))
    limit = TOLERANCES[name]
    return Proof(what, works=error <= limit, detail=f"relative error {error:.1e} (limit {limit:g})")
