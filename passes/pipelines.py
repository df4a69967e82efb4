"""The orders of passes that targets run: each a list you can read aloud."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from passes.attend_by_rows import AttendByRowsPass
from passes.base import Pass, PassReport
from passes.cap_versions import CapVersionsPass
from passes.compute_on_pictures import ComputeOnPicturesPass
from passes.fold_transpose_chain import FoldTransposeChainPass
from passes.halve_phases_exactly import HalvePhasesExactlyPass
from passes.halve_precision import HalvePrecisionPass
from passes.multiply_heads_apart import MultiplyHeadsApartPass
from passes.multiply_tokens_transposed import MultiplyTokensTransposedPass
from passes.narrow_int64_inputs import NarrowInt64InputsPass
from passes.normalize_by_rows import NormalizeByRowsPass
from passes.present_interface import PresentInterfacePass
from passes.scale_one_factor import ScaleOneFactorPass
from passes.specialize_size import SpecializeSizePass
from passes.split_convolutions import SplitConvolutionsPass
from passes.split_feed_forward import SplitFeedForwardPass
from passes.sum_norms_in_stages import SumNormsInStagesPass
from passes.take_embeddings import TakeEmbeddingsPass
from passes.write_out_gelu import WriteOutGeluPass
from passes.write_out_silu import WriteOutSiluPass

InputShapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class PipelineResult:
    """The graph after all passes and what each of them did, in order."""

    model: ir.Model
    reports: tuple[PassReport, ...]


@dataclass(frozen=True)
class Pipeline:
    """Passes in the order in which they run."""

    passes: Sequence[Pass]

    def run(self, model: ir.Model) -> PipelineResult:
        """Run every pass; the given model is changed in place where a pass can."""
        for one in self.passes:
            one(model)
        return PipelineResult(model, tuple(one.report for one in self.passes))


def present(
    inputs: Mapping[str, tuple[str, str]],
    outputs: Mapping[str, str],
    fed: Mapping[str, str] | None = None,
) -> Pipeline:
    """Template -> a profile's graph, sizes still symbolic; `fed` as `TakeEmbeddingsPass` has it."""
    return Pipeline(
        [
            *([TakeEmbeddingsPass(fed)] if fed else []),
            PresentInterfacePass(inputs, outputs),
        ]
    )


def onnxruntime(input_shapes: InputShapes) -> Pipeline:
    """Graph -> one size for ONNX Runtime."""
    return Pipeline(
        [SpecializeSizePass(input_shapes), FoldTransposeChainPass(), SumNormsInStagesPass()]
    )


def mnn(input_shapes: InputShapes | None, *, halves: bool = False) -> Pipeline:
    """Graph -> MNN: one size, or with None all sizes; `halves`: constants become float16."""
    exact: list[Pass] = [HalvePhasesExactlyPass()] if halves else []
    if input_shapes is None:
        return Pipeline(exact)
    return Pipeline([SpecializeSizePass(input_shapes), FoldTransposeChainPass(), *exact])


def tvm(input_shapes: InputShapes) -> Pipeline:
    """Graph -> one size for a CPU by TVM."""
    return Pipeline(
        [SpecializeSizePass(input_shapes), FoldTransposeChainPass(), SumNormsInStagesPass()]
    )


def adreno(
    input_shapes: InputShapes, *, clml: bool, half: bool, cut: Sequence[Pass] = ()
) -> Pipeline:
    """Graph -> one size for an Adreno by TVM, without what the passes of `cut` take out."""
    return Pipeline(
        [
            SpecializeSizePass(input_shapes),
            FoldTransposeChainPass(),
            *cut,
            *([MultiplyHeadsApartPass(), ComputeOnPicturesPass()] if clml else []),
            *([HalvePrecisionPass()] if half else []),
            SumNormsInStagesPass(),  # of what is float32 again
        ]
    )


def host() -> Pipeline:
    """What was cut out of a graph of one size -> MNN, on the CPU of a phone."""
    return Pipeline([AttendByRowsPass()])


def sophgo(input_shapes: InputShapes, *, half: bool = True, int8: bool = False) -> Pipeline:
    """Graph -> one size as tpu-mlir 1.30 reads it best.

    `half` if it computes with 16 bits, at least what lies between products; `int8` if much of it
    will be INT8.
    """
    faster: list[Pass] = [
        NormalizeByRowsPass(),  # a picture is read once
        WriteOutGeluPass(),  # after feed-forwards are split: that looks for their Erf
    ]
    return Pipeline(
        [
            SpecializeSizePass(input_shapes),
            FoldTransposeChainPass(),
            ScaleOneFactorPass(),
            SplitFeedForwardPass(),  # weights load while others are multiplied by
            MultiplyTokensTransposedPass(),  # a transposition less
            WriteOutSiluPass(),  # half the local memory
            *([SplitConvolutionsPass()] if int8 else ()),  # as feed-forwards
            *(faster if half else ()),
            NarrowInt64InputsPass(),  # the chip's hosts hand over 32-bit integers
            CapVersionsPass(ir_version=9, opset=18),  # its importer is onnx 1.14
        ]
    )
