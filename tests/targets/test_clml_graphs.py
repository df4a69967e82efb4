"""CLML's graphs without TVM: what the schema refuses, and what the reference computes."""

import copy
from typing import Any

import numpy as np
import pytest
import torch

from targets.tvm.inside import clml_reference, clml_schema

Json = dict[str, Any]


def tensor(op: str, name: str, shape: list[int]) -> Json:
    return {"op": op, "name": name, "attrs": {"shape": [shape], "dtype": ["float32"]}}


def kernel(name: str, shape: list[int], inputs: list[int], **attributes: Any) -> Json:
    node = tensor("kernel", name, shape)
    node["attrs"] |= {**attributes, "num_inputs": len(inputs), "num_outputs": 1}
    return {**node, "inputs": [[place, 0, 0] for place in inputs]}


def graph(*nodes: Json, heads: tuple[int, ...] = ()) -> Json:
    return {
        "nodes": list(nodes),
        "arg_nodes": [i for i, node in enumerate(nodes) if node["op"] != "kernel"],
        "heads": [[place, 0, 0] for place in heads or (len(nodes) - 1,)],
        "node_row_ptr": list(range(len(nodes) + 1)),
    }


PADDING = (1, 0, 1, 2)
STEPS = {"strides": [2, 1], "padding": [*PADDING], "dilation": [1, 2], "groups": 1}

ATTENTION = graph(
    tensor("input", "tokens", [6, 8]),
    tensor("input", "picture", [1, 8, 6, 1]),
    tensor("const", "Q", [4, 8]),
    kernel("nn.dense", [6, 4], [0, 2]),
    tensor("const", "K", [4, 8]),
    kernel("nn.dense", [6, 4], [0, 4]),
    kernel("reshape", [6, 4], [5]),
    kernel("nn.dense", [6, 6], [3, 6]),
    kernel("reshape", [6, 6, 1, 1], [7]),
    kernel("nn.softmax", [6, 6, 1, 1], [8], axis=1),
    kernel("reshape", [6, 6], [9]),
    tensor("const", "V", [4, 8, 1, 1]),
    kernel("nn.conv2d", [1, 4, 6, 1], [1, 11],
           strides=[1, 1], padding=[0, 0, 0, 0], dilation=[1, 1], groups=1),
    kernel("reshape", [4, 6], [12]),
    kernel("nn.dense", [4, 6], [13, 10]),
    kernel("reshape", [1, 4, 2, 3], [14]),
    kernel("concatenate", [1, 8, 2, 3], [15, 15], axis=1),
    kernel("add", [1, 8, 2, 3], [16, 16]),
    heads=(17, 3),
)  # fmt: skip
CONSTANTS = ["Q", "K", "V"]


def test_a_right_graph_passes() -> None:
    clml_schema.check(ATTENTION, CONSTANTS)


def change(path: list[Any], value: Any) -> Json:
    """The graph with one thing in it replaced."""
    changed = copy.deepcopy(ATTENTION)
    place: Any = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["symbol"], "name"),
        (["arg_nodes"], [0, 1]),
        (["node_row_ptr"], [0]),
        (["heads"], []),
        (["heads"], [[2, 0, 0]]),
        (["heads"], [[99, 0, 0]]),
        (["nodes", 0, "op"], "placeholder"),
        (["nodes", 0, "attrs", "shape"], [[6, 0]]),
        (["nodes", 0, "attrs", "shape"], [[6, "8"]]),
        (["nodes", 0, "attrs", "dtype"], ["int64"]),
        (["nodes", 2, "name"], "K"),
        (["nodes", 3, "name"], "nn.batch_matmul"),
        (["nodes", 3, "inputs"], [[0, 0, 0], [5, 0, 0]]),  # of what comes later
        (["nodes", 3, "attrs", "num_inputs"], "2"),
        (["nodes", 3, "attrs", "dtype"], ["float16"]),
        (["nodes", 3, "attrs", "shape"], [[6, 5]]),
        (["nodes", 9, "attrs", "axis"], 3),
        (["nodes", 12, "attrs", "groups"], 4),
        (["nodes", 12, "attrs", "strides"], ["1", "1"]),
        (["nodes", 12, "attrs", "padding"], [0, 0]),
        (["nodes", 12, "attrs", "padding"], [1, 0, 0, 0]),  # gives another shape
        (["nodes", 15, "attrs", "shape"], [[1, 4, 2, 2]]),
        (["nodes", 16, "attrs", "axis"], 0),
        (["nodes", 17, "inputs"], [[16, 0, 0], [15, 0, 0]]),
    ],
)
def test_a_malformed_graph_is_refused(path: list[Any], value: Any) -> None:
    with pytest.raises(clml_schema.MalformedGraphError, match="malformed"):
        clml_schema.check(change(path, value), CONSTANTS)


def test_constants_must_be_those_handed_over() -> None:
    with pytest.raises(clml_schema.MalformedGraphError, match="constants"):
        clml_schema.check(ATTENTION, ["Q", "V", "K"])


def test_the_reference_computes_attention_as_torch_does() -> None:
    rng = np.random.default_rng(0)
    tokens, q, k, v = (rng.standard_normal(s, np.float32) for s in ([6, 8], [4, 8], [4, 8], [4, 8]))
    constants = {"Q": q, "K": k, "V": v.reshape(4, 8, 1, 1)}
    picture = np.ascontiguousarray(tokens.T).reshape(1, 8, 6, 1)
    summed, queries = clml_reference.run(ATTENTION, constants, [tokens, picture])
    x = torch.from_numpy(tokens)
    queried, keys, held = (x @ torch.from_numpy(w).T for w in (q, k, v))
    wanted = torch.nn.functional.scaled_dot_product_attention(queried, keys, held, scale=1.0)
    wanted = wanted.T.reshape(1, 4, 2, 3).repeat(1, 2, 1, 1) * 2
    np.testing.assert_allclose(summed, wanted.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(queries, queried.numpy(), rtol=1e-5, atol=1e-5)


def test_the_reference_convolves_as_torch_does() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 3, 9, 8), np.float32)
    w = rng.standard_normal((5, 3, 3, 2), np.float32)
    b = rng.standard_normal((1, 5, 1, 1), np.float32)
    top, left, bottom, right = PADDING
    padded = torch.nn.functional.pad(torch.from_numpy(x), (left, right, top, bottom))
    wanted = torch.nn.functional.conv2d(
        padded, torch.from_numpy(w), torch.from_numpy(b.reshape(-1)), (2, 1), 0, (1, 2)
    )
    one = graph(
        tensor("input", "x", [1, 3, 9, 8]),
        tensor("const", "w", [5, 3, 3, 2]),
        tensor("const", "b", [1, 5, 1, 1]),
        kernel("nn.conv2d", list(wanted.shape), [0, 1, 2], **STEPS),
    )
    clml_schema.check(one, ["w", "b"])
    (found,) = clml_reference.run(one, {"w": w, "b": b}, [x])
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-5)


def test_half_precision_is_rounded_after_every_kernel() -> None:
    one = graph(tensor("input", "x", [1, 2]), kernel("add", [1, 2], [0, 0]))
    for node in one["nodes"]:
        node["attrs"]["dtype"] = ["float16"]
    (found,) = clml_reference.run(one, {}, [np.array([[1.0, 40000.0]], np.float16)])
    assert found.dtype == np.float16
    assert np.isinf(found[0, 1])
