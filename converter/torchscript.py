"""The original tool's export tree: TorchScript for all but text encoders, which are ONNX.

    text_encoder/text_encoder.onnx   unet/unet_{B}.pt, or unet_fuse_{B}.pt when a LoRA was merged
    vae_encoder/vae_encoder.pt       vae_decoder/vae_decoder.pt       controlnet/controlnet_{B}.pt

Ports, order and batch follow the bundle's profile. A traced script is of one picture size, as
the original's are: 512x512. Needs the `torch` extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from converter.components import TEXT_ENCODERS
from converter.families.controlnet import is_controlnet
from converter.files import replacing, require_space
from converter.modules import load_module, require_torch
from converter.progress import Event, Progress, silent
from converter.sizes import Size
from passes.linked_weights import read_graph
from passes.weights import weights_of

if TYPE_CHECKING:
    from pathlib import Path

    from converter.bundle import Bundle, BundleComponent

SIZE = Size(512, 512)


def export_torchscript(bundle: Bundle, progress: Progress = silent) -> list[Path]:
    """Write the tree into the bundle's folder and return the files."""
    require_torch("TorchScript")
    script_bytes = sum(c.weights_bytes for c in bundle.components.values())
    require_space(bundle.folder, script_bytes, "the TorchScript tree")
    files = []
    for component in bundle.components.values():
        stage = f"torchscript {component.name}"
        progress(Event(stage, 0.0))
        path = bundle.folder / component.name / _file_name(bundle, component.name)
        if component.name in TEXT_ENCODERS:
            _save_onnx(bundle, component, path)
        else:
            _save_script(bundle, component, path)
        files.append(path)
        progress(Event(stage, 1.0))
    return files


def _file_name(bundle: Bundle, component: str) -> str:
    if component in TEXT_ENCODERS:
        return f"{component}.onnx"
    if component == "unet":
        return f"unet_fuse_{bundle.batch}.pt" if bundle.adapters else f"unet_{bundle.batch}.pt"
    return f"{component}_{bundle.batch}.pt" if is_controlnet(component) else f"{component}.pt"


def _save_onnx(bundle: Bundle, component: BundleComponent, path: Path) -> None:
    """One file with the weights inside, as the original's is."""
    model = read_graph(bundle.folder / component.graph)
    weights = bundle.weights(component.name)
    for name, value in weights_of(model).items():
        value.const_value = ir.tensor(weights.read(name), name=name)
    with replacing(path) as work:
        work.write_bytes(ir.to_proto(model).SerializeToString())


def _save_script(bundle: Bundle, component: BundleComponent, path: Path) -> None:
    import torch

    module = load_module(bundle, component.name)
    batched = component.name == "unet" or is_controlnet(component.name)
    batch = bundle.batch if batched else 1
    arguments = tuple(
        torch.zeros(port.at(batch, SIZE), dtype=getattr(torch, port.dtype))
        for port in component.interface.inputs
    )
    with torch.no_grad(), replacing(path) as work:
        script = torch.jit.trace(module, arguments, check_trace=False)  # type: ignore[no-untyped-call]
        script.save(str(work))
