"""Where a run's time goes: made-up instructions, brute force, and a real profile."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.bundle import Bundle
from converter.sizes import Size
from targets.base import EngineTimes, LayerTime
from targets.compile import CompileRequest, compile_bundle, find_skeletons
from targets.sophgo.binding import stage_record
from targets.sophgo.record import PROFILE_FILE
from targets.sophgo.timeline import INSTRUCTION, Timeline
from targets.sophgo.toolchain import TpuMlir

COMPUTE, LOAD, STORE = range(3)
Instruction = tuple[int, str, int, int]
"""What it does, the layer, first and last cycle."""


def lines(*instructions: Instruction, cycles: int, ms: float) -> Iterator[str]:
    """A profile as the compiler writes it."""
    for number, (does, layer, first, last) in enumerate(instructions, 1):
        span = f"s:{first}|b:{number}|g:{number}|e:{last}|t:{last - first + 1}"
        if does == COMPUTE:
            yield f"{layer}_{number}|CONV|{span}\n"
        else:
            yield f"{layer}_{number}|GDMA_TENSOR|{span}|dr:{does - 1}|sz:64|bw:1.5\n"
    yield f"API_END total_cycle:{cycles}|b:9|g:9\n"
    yield f"flops: 1, runtime: {ms}ms, ComputationAbility: 0.1T\n"


def test_every_engine_and_layer_gets_its_cycles() -> None:
    told = Timeline.read(
        lines(
            (LOAD, "Load", 0, 99),
            (COMPUTE, "Conv2D", 50, 149),
            (LOAD, "Conv2D", 140, 159),
            (COMPUTE, "Softmax", 170, 179),
            (STORE, "Store", 175, 189),
            cycles=200,
            ms=20.0,
        )
    )
    assert told.engines == EngineTimes(compute_ms=4.5, both_ms=6.5, dma_ms=7.0, idle_ms=2.0)
    assert told.layers == (
        LayerTime("convolution", 10.0, 1.0),
        LayerTime("load", 0.0, 5.0),
        LayerTime("softmax", 1.0, 0.0),
        LayerTime("store", 0.0, 1.0),
    )


def test_instructions_that_are_numbered_by_more_engines() -> None:
    """As the compiler writes them for a BM1690: of a network on one core, and of one on several."""
    profile = """\
MatMul_3|MM2|s:0|b:1|g:0|h:0|sd:0|e:9|t:10     Load_4|GDMA_TENSOR|s:0|b:0|g:1|h:0|sd:0|e:4|t:5|dr:0
|BD_SEND_MSG|s:0|b:1|g:1|sd:1|e:-1|t:0
Cast_7|BD_WAIT_MSG|s:10|b:2|g:1|sd:2|e:9|t:0   Store_8|GDMA_TENSOR|s:10|b:1|g:2|sd:2|e:19|t:10|dr:1
API_END total_cycle:20|b:9|g:9
flops: 1, runtime: 2.0ms, ComputationAbility: 0.1T
"""
    told = Timeline.read(profile.splitlines())
    assert told.engines == EngineTimes(compute_ms=0.5, both_ms=0.5, dma_ms=1.0, idle_ms=0.0)
    assert [layer.kind for layer in told.layers] == ["matrix product", "store", "load", "cast"]


def test_parts_of_a_network_follow_each_other() -> None:
    one = [*lines((COMPUTE, "Conv2D", 0, 9), cycles=20, ms=1.0)]
    two = [*lines((LOAD, "Load", 0, 9), (COMPUTE, "Conv2D", 5, 9), cycles=10, ms=2.0)]
    told = Timeline.read([*one, *two])
    assert told.engines == EngineTimes(compute_ms=0.5, both_ms=1.0, dma_ms=1.0, idle_ms=0.5)
    assert told.layers == (LayerTime("convolution", 1.5, 0.0), LayerTime("load", 0.0, 1.0))


def test_a_layer_without_a_word_of_ours_keeps_the_vendors() -> None:
    told = Timeline.read(lines((COMPUTE, "Shape2Slice", 0, 9), cycles=10, ms=1.0))
    assert [layer.kind for layer in told.layers] == ["Shape2Slice"]


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ([], "0 parts of a network and 0 runtimes"),
        (["API_END total_cycle:5|b:1|g:1"], "1 parts of a network and 0 runtimes"),
        (
            [*lines((COMPUTE, "Conv2D", 0, 9), cycles=9, ms=1.0)],
            "ends after the last of 9 cycles",
        ),
    ],
)
def test_a_profile_that_contradicts_itself_is_refused(profile: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Timeline.read(profile)


@given(
    st.lists(
        st.tuples(
            st.sampled_from((COMPUTE, LOAD, STORE)),
            st.sampled_from(("Conv2D", "MatMul", "Load")),
            st.integers(0, 60),
            st.integers(0, 19),
        ),
        max_size=12,
    )
)
def test_as_counted_cycle_by_cycle(drawn: list[tuple[int, str, int, int]]) -> None:
    cycles = 80
    instructions = [(does, layer, first, first + more) for does, layer, first, more in drawn]
    busy = {engine: np.zeros(cycles, bool) for engine in ("compute", "dma")}
    for does, _, first, last in instructions:
        busy["compute" if does == COMPUTE else "dma"][first : last + 1] = True
    compute, dma = busy.values()
    told = Timeline.read(lines(*instructions, cycles=cycles, ms=float(cycles)))
    expected = (compute & ~dma, compute & dma, dma & ~compute, ~compute & ~dma)
    engines = told.engines
    found = (engines.compute_ms, engines.both_ms, engines.dma_ms, engines.idle_ms)
    assert found == pytest.approx([int(where.sum()) for where in expected])
    assert sum(layer.compute_ms for layer in told.layers) == pytest.approx(int(compute.sum()))
    assert sum(layer.dma_ms for layer in told.layers) == pytest.approx(int((dma & ~compute).sum()))


@pytest.mark.slow
def test_a_real_unet_adds_up(tpu_mlir: TpuMlir, shallow_bundle: Bundle, tmp_path: Path) -> None:
    request = CompileRequest(
        shallow_bundle.folder, "bm1684x", (Size(64, 64),), tmp_path, components=("unet",)
    )
    (artifact,) = compile_bundle(request).artifacts
    told = artifact.estimate
    assert told is not None
    engines = told.engines
    parts = (engines.compute_ms, engines.both_ms, engines.dma_ms, engines.idle_ms)
    nanosecond = 1e-6
    assert sum(parts) == pytest.approx(artifact.predicted_ms, abs=len(parts) * nanosecond)
    assert min(parts) >= 0
    layers = sum(layer.ms for layer in told.layers) + engines.idle_ms
    assert layers == pytest.approx(artifact.predicted_ms, abs=len(told.layers) * nanosecond)
    kinds = {layer.kind for layer in told.layers}
    assert {"convolution", "matrix product", "softmax", "group norm", "load", "store"} <= kinds
    record = stage_record(tmp_path / artifact.path, artifact.key)
    assert told.operations == record.cycle_model.flops > 10**7


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["bm1684x", "bm1688-2core", "bm1684x2", "bm1690-8core"])
def test_no_instruction_of_a_real_profile_is_missed(
    chip: str, tpu_mlir: TpuMlir, small_bundle: Bundle, tmp_path: Path
) -> None:
    request = CompileRequest(
        small_bundle.folder, chip, (Size(64, 64),), tmp_path, {"vae_decoder": "f16"},
        components=("vae_decoder",),
    )  # fmt: skip
    (artifact,) = compile_bundle(request).artifacts
    (skeleton,) = find_skeletons(request)
    profile = gzip.decompress((skeleton / f"{PROFILE_FILE}.gz").read_bytes()).decode()
    found = [match for line in profile.splitlines() for match in INSTRUCTION.finditer(line)]
    moves = [match for match in found if match["moves"]]
    record = stage_record(tmp_path / artifact.path, artifact.key)
    counted = record.cycle_model
    assert (len(found) - len(moves), len(moves)) == (counted.computes, counted.moves)
    assert artifact.estimate is not None
    engines = artifact.estimate.engines
    parts = (engines.compute_ms, engines.both_ms, engines.dma_ms, engines.idle_ms)
    assert sum(parts) == pytest.approx(artifact.predicted_ms, abs=4e-6)
