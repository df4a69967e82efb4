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
    CLIP_VOCABULARY,
    CONTROLNET,
    Architecture,
    TextEncoderArchitecture,
    UNetArchitecture,
)
from converter.cache import Cache, content_key
from converter.components import complete, part, text_positions
from converter.families.controlnet import copied_part, kind_of
from converter.families.published import (
    SD2,
    SD15,
    SD15_CLIP_SKIP_2,
    SD15_UNET,
    SDXL,
    SDXL_POOLED,
    SDXL_UNET,
)
from converter.families.text import VOCABULARY_TABLE
from converter.files import replacing
from converter.progress import Event, Progress, silent
from converter.sizes import LATENT_CHANNELS
from passes.pool_at_end_token import PoolAtEndTokenPass
from passes.weights import plan_offsets

TEMPLATE_FORMAT = "1"
"""Raise it whenever `converter.tracing` would make another graph: older templates are left."""

SHIPPED = Path(__file__).parent / "templates"
GRAPH = "template.onnx.xz"

TRACED_WITH = ("torch", "diffusers", "transformers", "onnxscript")

SHIPPED_GRAPHS = (
    *((SD15, component, False) for component in complete(SD15)),
    (SD15, "unet", True),
    (SD15_CLIP_SKIP_2, "text_encoder", False),
    (replace(SD15, controlnets=(copied_part(SD15_UNET),)), CONTROLNET, True),
    *((SD2, component, False) for component in complete(SD2)),
    *((SDXL, component, False) for component in complete(SDXL)),
    (SDXL_POOLED, "text_encoder", False),
    (SDXL, "unet", True),
    (replace(SDXL, controlnets=(copied_part(SDXL_UNET),)), CONTROLNET, True),
)
"""Architecture, component, residual ports of every template that ships."""


def template_inputs(
    component: str, architecture: Architecture, *, residual_ports: bool
) -> dict[str, str]:
    """Everything a template depends on, as the inputs of its content key.

    The family is not among them: architectures of two families that make the same graph share it.
    """
    described = part(architecture, component)
    assert described is not None
    values = described.to_json()
    if isinstance(described, UNetArchitecture):
        values["positions"] = text_positions(architecture)
    values.pop("scaling_factor", None)  # latents are scaled outside the graph
    for field in ("last_state", "pooled"):
        if not values.get(field, True):
            values.pop(field)  # as before there was such a field
    return {
        "component": kind_of(component).removesuffix("_2"),
        "architecture": content_key(values),
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
    plain = _plain(component, architecture)
    inputs = template_inputs(component, plain, residual_ports=residual_ports)
    key = content_key(inputs)
    path = SHIPPED / _file_name(inputs)

    def build(folder: Path) -> None:
        from converter.tracing import trace

        stage = f"trace {component}"
        progress(Event(stage, 0.0, "first time for this architecture, about a minute"))
        _write(trace(component, plain, residual_ports=residual_ports), folder / GRAPH)
        progress(Event(stage, 1.0))

    if not path.is_file():
        label = f"{architecture.family} {component}"
        path = Cache("templates").make(label, inputs, build).path / GRAPH
    model = _read(path)
    described = part(architecture, component)
    if plain != architecture and isinstance(described, TextEncoderArchitecture):
        set_vocabulary(model, described.vocabulary)
    elif plain != architecture and isinstance(described, UNetArchitecture):
        set_input_channels(model, described.in_channels)
    return model, key


def find_template(
    component: str, architecture: Architecture, *, residual_ports: bool
) -> tuple[Path | None, str]:
    """Where the template lies, None where it would have to be traced, and its key."""
    plain = _plain(component, architecture)
    inputs = template_inputs(component, plain, residual_ports=residual_ports)
    shipped = SHIPPED / _file_name(inputs)
    if shipped.is_file():
        return shipped, content_key(inputs)
    entry = Cache("templates").find(inputs)
    return None if entry is None else entry / GRAPH, content_key(inputs)


def _plain(component: str, architecture: Architecture) -> Architecture:
    """The architecture whose template serves: CLIP's own tokens, a latent's own channels."""
    described = part(architecture, component)
    plain: UNetArchitecture | TextEncoderArchitecture
    if isinstance(described, TextEncoderArchitecture):
        plain = replace(described, vocabulary=min(described.vocabulary, CLIP_VOCABULARY))
    elif component == "unet" and isinstance(described, UNetArchitecture):
        plain = replace(described, in_channels=LATENT_CHANNELS)
    else:
        return architecture
    return replace(architecture, **{component: plain})  # type: ignore[arg-type]  # its own part


def set_input_channels(model: ir.Model, channels: int) -> None:
    """Let a UNet's graph take this many channels (9: inpainting); only its stem depends on them."""
    sample, stem = model.graph.inputs[0], model.graph.initializers["conv_in.weight"]
    for value in (sample, stem):
        assert value.shape is not None
        value.shape = ir.Shape([*value.shape[:1], channels, *value.shape[2:]])
    plan_offsets(model)


def set_vocabulary(model: ir.Model, vocabulary: int) -> None:
    """Let a text encoder's graph take this many tokens, of which CLIP's own are the first."""
    tokens = model.graph.initializers[VOCABULARY_TABLE]
    assert tokens.shape is not None
    tokens.shape = ir.Shape([vocabulary, *tokens.shape[1:]])
    plan_offsets(model)
    PoolAtEndTokenPass(CLIP_VOCABULARY - 1)(model)


def _file_name(inputs: dict[str, str]) -> str:
    ports = "-residuals" if inputs["residual ports"] == "True" else ""
    return f"{inputs['component']}{ports}-{content_key(inputs)[:12]}.onnx.xz"


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
    """Trace the shipped templates that are missing; files of older keys are removed."""
    from converter.tracing import trace

    names = set()
    for architecture, component, ports in SHIPPED_GRAPHS:
        inputs = template_inputs(component, architecture, residual_ports=ports)
        name = _file_name(inputs)
        names.add(name)
        if not (SHIPPED / name).is_file():
            _write(trace(component, architecture, residual_ports=ports), SHIPPED / name)
        sys.stdout.write(f"{name}: {(SHIPPED / name).stat().st_size} bytes\n")
        sys.stdout.flush()
    for stale in SHIPPED.glob("*.onnx.xz"):
        if stale.name not in names:
            stale.unlink()


if __name__ == "__main__":
    regenerate()
