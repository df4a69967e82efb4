"""The micro network as a job, and its weights."""

from pathlib import Path

import onnx_ir as ir

from passes.linked_weights import read_graph
from targets.base import CompileJob
from targets.micro_network import MicroNetwork, write_micro_network
from tests.targets.sophgo_jobs import Weights


def micro_job(folder: Path, precision: str = "f32") -> tuple[CompileJob, MicroNetwork]:
    network = write_micro_network(folder)
    shapes = (("picture", network.picture.shape),)
    return CompileJob("micro", network.graph, "", shapes, None, 1, precision), network


def micro_graph(job: CompileJob) -> ir.Model:
    return read_graph(job.graph)


def micro_weights(network: MicroNetwork) -> Weights:
    return Weights(network.values, "micro", network.weights)
