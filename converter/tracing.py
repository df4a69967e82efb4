"""Trace a component once per architecture, without storage, into a weightless dynamic ONNX graph.

Parameters are fake tensors: they have shapes and no bytes. They are hidden from the exporter's
optimiser as graph inputs, so it can fold shape arithmetic and nothing else, and come back as
external tensors at planned offsets. Needs the `torch` extra.
"""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from onnx_ir.passes import common

from converter.components import interface, size_multiple
from converter.families.controlnet import is_controlnet
from converter.modules import build_module
from converter.sizes import Size
from passes.fold_weight_layout import FoldWeightLayoutPass
from passes.weights import WEIGHTS_FILE, hidden_weights, plan_offsets, unwritten, weights_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from converter.architecture import Architecture
    from converter.interface import Interface

OPSET = 18
"""Every consumer of today reads it; it is the exporter's native opset, so nothing is converted."""

EXAMPLE_BATCH = 2
LARGEST_BATCH = 63  # diffusers' up-sampling takes another path from 64 on


def trace(component: str, architecture: Architecture, *, residual_ports: bool) -> ir.Model:
    """Return the weightless graph of a component: symbolic batch, height and width, opset 18."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    module = build_module(component, architecture, residual_ports=residual_ports)
    ports = interface(component, architecture, residual_ports=residual_ports)
    tied = is_controlnet(component) or (component == "unet" and residual_ports)
    multiple = size_multiple(architecture, residual_ports=tied)
    # Extents must differ from each other and from 1, or the tracer takes them for constants.
    size = Size(width=multiple * 5, height=multiple * 7) if multiple > 8 else Size(312, 344)
    # Without ports a UNet halves each side at every level; the last must stay above 1, which the
    # tracer would take for a constant.
    unet = architecture.unet
    fewest = 2
    if component == "unet" and unet is not None and not residual_ports:
        fewest = 2 ** (len(unet.block_channels) - 1) + 1
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    with _quiet_exporter(), mode, torch.no_grad():
        _make_fake(module)
        arguments = tuple(
            torch.empty(port.at(EXAMPLE_BATCH, size), dtype=getattr(torch, port.dtype))
            for port in ports.inputs
        )
        program = torch.export.export(
            module,
            arguments,
            strict=False,
            dynamic_shapes=_dynamic_shapes(ports, multiple, fewest),
        )
        exported = torch.onnx.export(
            program,
            arguments,
            dynamo=True,
            optimize=False,  # the optimiser would ask for the values of fake tensors
            opset_version=OPSET,
            input_names=[port.name for port in ports.inputs],
            output_names=[port.name for port in ports.outputs],
            verbose=False,
        )
    assert exported is not None
    return _weightless(exported.model, ports)


def _make_fake(module: torch.nn.Module) -> None:
    """Replace every (meta) parameter by a fake CPU tensor; call under the fake mode."""
    import torch

    for child in module.modules():
        for name, parameter in child._parameters.items():
            if parameter is not None:
                fake = torch.empty(parameter.shape, dtype=parameter.dtype)
                child._parameters[name] = torch.nn.Parameter(fake, requires_grad=False)


def _dynamic_shapes(ports: Interface, multiple: int, fewest: int) -> tuple[Any, ...]:
    """Return the exporter's dynamic shapes: every side a multiple of one symbol per direction."""
    from torch.export import Dim as Symbol

    symbols: dict[str, Any] = {"batch": Symbol("batch", min=1, max=LARGEST_BATCH)}
    for side in ("height", "width"):
        symbols[side] = Symbol(f"{side}_cells", min=fewest, max=1024)

    def spec(dim: str) -> Any:
        if dim == "batch":
            return symbols["batch"]
        side, _, divisor = dim.partition("/")
        cells = multiple // int(divisor or 1)
        return cells * symbols[side] if cells > 1 else symbols[side]

    shapes = [
        {axis: spec(dim) for axis, dim in enumerate(port.shape) if isinstance(dim, str)}
        for port in ports.inputs
    ]
    if len(shapes) > 3:  # what a UNet or ControlNet takes beyond three is one variadic argument
        return (*shapes[:3], tuple(shapes[3:]))
    return tuple(shapes)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's remarks on graphs that are fine, and on its own old spellings."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for category in (FutureWarning, DeprecationWarning, UserWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        logging.disable(previous)


def _weightless(model: ir.Model, ports: Interface) -> ir.Model:
    from onnxscript.optimizer import optimize_ir

    for name, value in list(model.graph.initializers.items()):
        if _is_fake(value.const_value):
            assert value.shape is not None and value.dtype is not None
            value.const_value = unwritten(WEIGHTS_FILE, name, value.shape, value.dtype, 0)
    with hidden_weights(model):
        optimize_ir(model)
    for name, value in weights_of(model).items():
        if not value.uses():
            del model.graph.initializers[name]
    FoldWeightLayoutPass()(model)
    plan_offsets(model)
    _name_dimensions(model, ports)
    _strip(model)
    return model


def _is_fake(tensor: Any) -> bool:
    raw = getattr(tensor, "raw", None)
    return any("Fake" in type(part).__name__ for part in (raw, getattr(raw, "data", None)))


def _name_dimensions(model: ir.Model, ports: Interface) -> None:
    sides = zip(
        (*model.graph.inputs, *model.graph.outputs), (*ports.inputs, *ports.outputs), strict=True
    )
    for value, port in sides:
        value.shape = ir.Shape(port.shape)


def _strip(model: ir.Model) -> None:
    """Drop stack traces (nine tenths of the bytes) and shapes that name the tracer's symbols."""
    common.ClearMetadataAndDocStringPass()(model)
    ends = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    for node in model.graph:
        for value in node.outputs:
            if id(value) not in ends:
                value.shape = None
    model.producer_name, model.producer_version = "sdconv", None
