"""What the fake toolchain's Python runs instead of the vendor's scripts.

Weights go into the region one after another, cast to the precision (f16 where it is none of a
float). A network called "broken" cannot be imported; while one called "large" is, the system kills
the compiler; the import of one called "endless" never ends; of one called "folded", the weights are
multiplied by a factor on the way.
"""

import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

PROFILE = """\
Conv2D_3204|CONV|s:1255096|b:11579|g:1451|e:1255239|t:144
API_END total_cycle:1255343|b:11580|g:1452
TCYC : 1255343
GDMA SUMMARY : |dr[0] S2L:15185860|dr[1] L2S:1245712|dr[2] S2S:64|dr[3] L2L:0
DDR BW USAGE : 19.04759938%

flops: 126177152, runtime: 1.255343ms, ComputationAbility: 0.100512T
"""
"""The end of a profile as the compiler wrote it for a small UNet."""

IMPORTED = Path("imported.json")

MLIR = """\
#loc = loc(unknown)
module @unet {
  func.func @main(%arg0: tensor<1x4x8x8xf32> loc(unknown)) -> tensor<1x6x8x8xf32> {
    %0 = "top.None"() : () -> none loc(#loc)
    %1 = "top.Input"(%arg0) : (tensor<1x4x8x8xf32>) -> tensor<1x4x8x8xf32> loc(#loc1)
    %2 = "top.Weight"() : () -> tensor<6x4x1x1xf32> loc(#loc2)
    %3 = "top.Weight"() : () -> tensor<6xf32> loc(#loc3)
    %4 = "top.Conv"(%1, %2, %3) {group = 1 : i64} : (...) -> tensor<1x6x8x8xf32> loc(#loc4)
    %5 = "top.MatMul"(%4, %4, %0) {do_relu = false} : (...) -> tensor<1x6x8x8xf32> loc(#loc5)
    %6:2 = "top.Split"(%5) {num = 2 : i64} : (...) -> (...) loc(#loc8)
    return %5 : tensor<1x6x8x8xf32> loc(#loc)
  } loc(#loc)
} loc(#loc)
#loc1 = loc("sample")
#loc2 = loc("kernel")
#loc3 = loc("bias")
#loc4 = loc("noise_pred_Conv")
#loc5 = loc("squared_MatMul")
#loc6 = loc("first")
#loc7 = loc("second")
#loc8 = loc(fused[#loc6, #loc7])
"""
"""A graph as the vendor's optimiser leaves it, of the job that `sophgo_jobs` has."""


def importer(graph: str, weights: str, name: str, mlir: str) -> None:
    """Remember what was to be imported."""
    del name, mlir
    if b"broken" in Path(graph).read_bytes():
        sys.stdout.write("Traceback (most recent call last):\n  File x, line 1\n    frame\n")
        sys.exit("RuntimeError: Op not support:{'IsNaN'}")
    if b"large" in Path(graph).read_bytes():
        os.kill(os.getpid(), signal.SIGKILL)
    if b"endless" in Path(graph).read_bytes():
        time.sleep(60)
    IMPORTED.write_text(json.dumps([graph, weights]))


def model_deploy(precision: str, bmodel: str) -> None:
    """Write a bmodel, the final MLIR that names its weights, and a profile."""
    import numpy as np

    from passes.linked_weights import read_graph
    from passes.weights import weight_places
    from targets.sophgo.packing.layouts import DTYPES
    from tests.targets.bmodel.small import WEIGHTS_AT, small_bmodel

    graph_file, weights_file = json.loads(IMPORTED.read_text())
    graph = read_graph(Path(graph_file))
    content = np.fromfile(weights_file, np.uint8)
    factor = 1.5 if graph.graph.name == "folded" else 1.0
    precision = precision if precision in DTYPES else "f16"
    dtype, packed, lines = DTYPES[precision], {}, ["#loc = loc(unknown)"]
    offset = 0
    for number, (name, place) in enumerate(weight_places(graph).items()):
        values = content[place.offset :][: place.nbytes].view(np.float32) * np.float32(factor)
        packed[name] = values.astype(dtype).tobytes().ljust(4096, b"\0")
        shape = "x".join(map(str, place.shape))
        lines.append(f'#loc{number} = loc("{name}_{precision}")')
        lines.append(
            f'%{number} = "top.Weight"() {{}} : () -> tensor<{shape}x{precision}, '
            f"{WEIGHTS_AT + offset} : i64> loc(#loc{number})"
        )
        offset += len(packed[name])
    shape_of_input = graph.graph.inputs[0].shape
    assert shape_of_input is not None
    width = shape_of_input.numpy()[-1]
    Path(bmodel).write_bytes(small_bmodel(f"{graph.graph.name} {precision}", width, packed))
    Path("x_final.mlir").write_text("\n".join(lines) + "\n")
    Path("compiler_profile_0.txt").write_text(PROFILE)
    sys.stdout.write("[Success]: tpuc-opt\n" * 3)


if __name__ == "__main__":
    script, *words = sys.argv[1:]
    match Path(script).name:
        case "tape.py":
            sys.argv = [script, *words]
            runpy.run_path(script, run_name="__main__")
        case "importer.py":
            importer(*words)
        case "model_deploy.py" if "--not_gen_bmodel" in words:
            Path("unet_tpu.mlir").write_text("module {}\n")
        case "model_deploy.py":
            model_deploy(words[3].lower(), words[7])
        case "interpreter_driver.py":
            sys.stdout.write(json.dumps({"inputs": ["sample"], "outputs": ["out"]}) + "\n")
        case "emulator_driver.py":
            sys.stderr.write("ASSERT info: wrong gdma type\n")
            sys.exit(255)
