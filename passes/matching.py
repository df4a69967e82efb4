"""What several passes look for in a graph."""

from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True)
class Linear:
    """A linear layer: `tokens` times a weight [inputs, outputs], plus a bias [outputs] or not."""

    tokens: ir.Value
    weight: ir.Value
    bias: ir.Value | None


def extents(value: ir.Value | None) -> tuple[int, ...]:
    """The shape of a value in a graph of one size."""
    assert value is not None and value.shape is not None
    return tuple(value.shape.numpy())


def produced_by(value: ir.Value | None) -> ir.Node | None:
    """The node whose first output this is."""
    return None if value is None else value.producer()


def is_weight(value: ir.Value | None, rank: int) -> bool:
    """Whether it is a weight of so many axes."""
    if value is None or not isinstance(value.const_value, ir.ExternalTensor):
        return False
    return value.shape is not None and len(value.shape) == rank


def constant_number(value: ir.Value | None) -> float | None:
    """The number that a value is, where it is one constant number and no weight."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.size != 1:
        return None
    return float(tensor.numpy().item())


def linear(value: ir.Value | None) -> Linear | None:
    """The linear layer that a value is the result of, where nobody else uses its product."""
    node, bias = produced_by(value), None
    if node is not None and node.op_type == "Add":
        bias = next((v for v in node.inputs if is_weight(v, rank=1)), None)
        product = next((v for v in node.inputs if v is not bias), None)
        node = produced_by(product)
        if bias is None or product is None or len(product.uses()) != 1:
            return None
    if node is None or node.op_type != "MatMul" or not is_weight(node.inputs[1], rank=2):
        return None
    tokens, weight = node.inputs
    assert tokens is not None and weight is not None
    return Linear(tokens, weight, bias)
