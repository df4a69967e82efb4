"""Templates: weightless graphs, shipped for common architectures, traced once for any other.

A template is an ONNX graph with symbolic batch, height and width whose weights are external
tensors at planned offsets of a file that does not exist yet. It depends on the architecture
alone. Shipped ones lie in `converter/templates/` (made by `python -m converter.template`),
traced ones in the cache folder; both are found by the same content key.
"""

import importlib.metadata
import lzma
import sys
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
from converter.components import COMPONENTS, PART_OF
from converter.files import replacing
from converter.progress import Event, Progress, silent

TEMPLATE_FORMAT = "1"
"""Raise it whenever `converter.tracing` would make another graph: older templates are left."""

SHIPPED = Path(__file__).parent / "templates"
GRAPH = "template.onnx.xz"
TRACED_WITH = ("torch", "diffusers", "transformers", "onnxscript")

SD15 = Architecture(
    family="sd15",
    unet=UNetArchitecture(4, 4, (320, 640, 1280, 1280), 2, (True, True, True, False), 768, 8),
    text_encoder=TextEncoderArchitecture(49408, 77, 768, 3072, 12, 12, "quick_gelu"),
    vae=VaeArchitecture(4, (128, 256, 512, 512), 2, 0.18215),
)
"""The architecture of every full-size SD1.x checkpoint, whose templates ship with the package."""


def template_inputs(
    component: str, architecture: Architecture, *, residual_ports: bool
) -> dict[str, str]:
    """Everything a template depends on, as the inputs of its content key."""
    parts = architecture.to_json()
    text = architecture.text_encoder
    part = parts[PART_OF[component]]
    if component == "unet":
        part = {**part, "positions": 77 if text is None else text.positions}
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


def regenerate() -> None:
    """Trace the shipped templates anew; files of older keys are removed."""
    from converter.tracing import trace

    wanted = [(component, False) for component in COMPONENTS] + [("unet", True)]
    names = set()
    for component, ports in wanted:
        inputs = template_inputs(component, SD15, residual_ports=ports)
        name = _file_name(SD15.family, component, inputs, content_key(inputs))
        _write(trace(component, SD15, residual_ports=ports), SHIPPED / name)
        names.add(name)
        sys.stdout.write(f"{name}: {(SHIPPED / name).stat().st_size} bytes\n")
    for stale in SHIPPED.glob("*.onnx.xz"):
        if stale.name not in names:
            stale.unlink()


if __name__ == "__main__":
    regenerate()
