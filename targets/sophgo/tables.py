"""The files that tell tpu-mlir what is INT8 and in which steps, beside the graph that it reads."""

from collections.abc import Callable
from pathlib import Path

from targets.base import CompileJob
from targets.sophgo import calibration_table, mixed, observing, top_graph
from targets.sophgo.operations import write_table
from targets.sophgo.precisions import PRECISIONS, modes_of

CALIBRATION_TABLE = "calibration_table"
QUANTIZE_TABLE = "quantize_table"

SOURCES = tuple(
    Path(__file__).with_name(f"{name}.py")
    for name in ("calibration_table", "mixed", "observing", "tables", "top_graph")
)
"""What the tables depend on besides graph, weights and data."""


def write_tables(
    job: CompileJob, weights: Path, work: Path, report: Callable[[float], None]
) -> None:
    """Write both tables into `work`, where the optimised graph lies; a user's own is there already.

    Operations whose results get 16 bits are marked in the graph. Raises ToolchainError.
    """
    assert job.calibration is not None
    precision, file = PRECISIONS[job.precision], work / f"{job.component}.mlir"
    text = file.read_text()
    graph = top_graph.parse(text)
    computing = top_graph.computing(graph)
    wide: list[str] = []
    if precision.mixed:
        int8 = mixed.products_in_int8(graph)
        wide = mixed.of_16_bits(graph, int8)
        write_table({name: "f16" for name in computing if name not in int8}, work / QUANTIZE_TABLE)
        file.write_text(top_graph.with_attribute(text, graph, wide, "output_int16 = true"))
    modes = modes_of(work / QUANTIZE_TABLE) if (work / QUANTIZE_TABLE).exists() else {}
    half = {name for name in computing if modes.get(name, precision.activations).upper() != "INT8"}
    ranges = observing.observe(
        work / f"{job.component}.onnx",
        work / weights,
        job.calibration,
        report,
        everything=not precision.mixed,
    )
    table = calibration_table.calibration_table(graph, half, wide, ranges)
    (work / CALIBRATION_TABLE).write_text(table)
