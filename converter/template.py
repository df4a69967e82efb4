"""Templates: weightless graphs, shipped for common architectures, traced once for any other.

A template is an ONNX graph with symbolic batch, height and width whose weights are external
tensors at planned offsets of a file that does not exist yet. It depends on the architecture
alone. Shipped ones lie in `converter/templates/` (made by `python -m converter.template`),
traced ones in the cache folder; both are found by the same content key.
"""

import importlib.metadata
import lzma
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir

from converter.architecture import (
    Architecture,
    TextEncoderArchitecture,
    UNetArchitecture,
    VaeArchitecture,
)
from converter.cache import Cache, content_key
from converter.components import PART_OF, complete, text_positions
from converter.files import replacing
from converter.progress import Event, Progress, silent

TEMPLATE_FORMAT = "1"
"""Raise it whenever `converter.tracing` would make another graph: older templates are left."""

SHIPPED = Path(__file__).parent / "templates"
GRAPH = "template.onnx.xz"
TRACED_WITH = ("torch", "diffusers", "transformers", "onnxscript")

SD15_UNET = UNetArchitecture(
    in_channels=4,
    out_channels=4,
    block_channels=(320, 640, 1280, 1280),
    down_depths=((1, 1), (1, 1), (1, 1), (0, 0)),
    middle_depth=1,
    up_depths=((0, 0, 0), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    context_dim=768,
    attention_heads=(8, 8, 8, 8),
)
CLIP_L = TextEncoderArchitecture(49408, 77, 768, 3072, 12, 12, "quick_gelu")
CLIP_H = TextEncoderArchitecture(49408, 77, 1024, 4096, 24, 16, "gelu", clip_skip=1)
CLIP_BIG_G = TextEncoderArchitecture(
    49408, 77, 1280, 5120, 32, 20, "gelu", clip_skip=1, final_norm=False, projection_dim=1280
)
KL_F8 = VaeArchitecture(4, (128, 256, 512, 512), 2, 0.18215)

SD15 = Architecture("sd15", SD15_UNET, CLIP_L, KL_F8)
"""The architecture of every full-size SD1.x checkpoint."""

SD2_UNET = replace(
    SD15_UNET, context_dim=1024, attention_heads=(5, 10, 20, 20), linear_projection=True
)
SD2 = Architecture("sd2", SD2_UNET, CLIP_H, KL_F8)
"""The architecture of every full-size SD2.x checkpoint."""

SDXL_UNET = UNetArchitecture(
    in_channels=4,
    out_channels=4,
    block_channels=(320, 640, 1280),
    down_depths=((0, 0), (2, 2), (10, 10)),
    middle_depth=10,
    up_depths=((10, 10, 10), (2, 2, 2), (0, 0, 0)),
    context_dim=2048,
    attention_heads=(5, 10, 20),
    linear_projection=True,
    pooled_dim=1280,
    time_ids=6,
)
SDXL = Architecture(
    "sdxl",
    SDXL_UNET,
    replace(CLIP_L, clip_skip=1, final_norm=False),
    replace(KL_F8, scaling_factor=0.13025),
    CLIP_BIG_G,
)
"""The architecture of full-size SDXL base."""


def template_inputs(
    component: str, architecture: Architecture, *, residual_ports: bool
) -> dict[str, str]:
    """Everything a template depends on, as the inputs of its content key."""
    parts = architecture.to_json()
    part = parts[PART_OF[component]]
    if component == "unet":
        part = {**part, "positions": text_positions(architecture)}
    return {
        "component": component,
        "family": architecture.family,
        "architecture": content_key(part),
        "residual ports": str(residual_ports and component == "unet"),
        "template format": TEMPLATE_FORMAT,
    }


def load_template(
    component: str,
    architecture: Architecture,
    *,
    residual_ports: bool,
    progress: Progress = silent,
) -> tuple[ir.Model, str]:
    """Return the template and its key: shipped, cached, or traced now.

    Raises InputError when it has to be traced and the torch extra is not installed.
    """
    inputs = template_inputs(component, architecture, residual_ports=residual_ports)
    key = content_key(inputs)
    shipped = SHIPPED / _file_name(architecture.family, component, inputs, key)
    if shipped.is_file():
        return _read(shipped), key

    def build(folder: Path) -> None:
        from converter.tracing import trace

        stage = f"trace {component}"
        progress(Event(stage, 0.0, "first time for this architecture, about a minute"))
        _write(trace(component, architecture, residual_ports=residual_ports), folder / GRAPH)
        progress(Event(stage, 1.0))

    made = Cache("templates").make(f"{architecture.family} {component}", inputs, build)
    return _read(made.path / GRAPH), key


def _file_name(family: str, component: str, inputs: dict[str, str], key: str) -> str:
    ports = "-residuals" if inputs["residual ports"] == "True" else ""
    return f"{family}-{component}{ports}-{key[:12]}.onnx.xz"


def _read(path: Path) -> ir.Model:
    proto = onnx.ModelProto.FromString(lzma.decompress(path.read_bytes()))
    return ir.serde.deserialize_model(proto)


def _write(model: ir.Model, path: Path) -> None:
    for package in TRACED_WITH:
        model.metadata_props[package] = importlib.metadata.version(package).partition("+")[0]
    data = ir.to_proto(model).SerializeToString(deterministic=True)
    with replacing(path) as work:
        work.write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))


SHIPPED_GRAPHS = (
    *((SD15, component, False) for component in complete(SD15)),
    (SD15, "unet", True),
    *((SD2, component, False) for component in complete(SD2)),
    *((SDXL, component, False) for component in complete(SDXL)),
)
"""Architecture, component, residual ports of every template that ships."""


def regenerate() -> None:
    """Trace the shipped templates anew; files of older keys are removed."""
    from converter.tracing import trace

    names = set()
    for architecture, component, ports in SHIPPED_GRAPHS:
        inputs = template_inputs(component, architecture, residual_ports=ports)
        name = _file_name(architecture.family, component, inputs, content_key(inputs))
        _write(trace(component, architecture, residual_ports=ports), SHIPPED / name)
        names.add(name)
        sys.stdout.write(f"{name}: {(SHIPPED / name).stat().st_size} bytes\n")
    for stale in SHIPPED.glob("*.onnx.xz"):
        if stale.name not in names:
            stale.unlink()


if __name__ == "__main__":
    regenerate()
