"""SiLU and GELU have one form: max(x, 0) - |x| s(|x|), where s falls from 1/2 to 0.

What is written here are its ends. `Relu` and `Sub` would do for the first of them; but tpu-mlir
1.30.2 puts neither into a group of operators that has a matrix product.
"""

import onnx_ir as ir

from passes.building import Builder


def minus_size(build: Builder, value: ir.Value) -> ir.Value:
    """Add -|x|."""
    return build.elementwise("Mul", build.elementwise("Abs", value), build.number(-1.0))


def falling(build: Builder, value: ir.Value, minus: ir.Value, share: ir.Value) -> ir.Value:
    """Add x/2 + |x|/2 - |x| s, where `minus` is -|x| and `share` is s; the halves are exact."""
    half = build.elementwise("Mul", value, build.number(0.5))
    other = build.elementwise("Mul", minus, build.number(-0.5))
    positive = build.elementwise("Add", half, other)
    return build.elementwise("Add", positive, build.elementwise("Mul", share, minus))
