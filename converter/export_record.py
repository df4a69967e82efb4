"""An export request as plain values: in `bundle.json`, and as the section `export` of a recipe.

Only what was asked for stands there, under the names of the command's options. Files are absolute
paths, so that what was exported can be held against them later, from any folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.adapters.choice import AdapterChoice
from converter.architecture import controlnet_name
from converter.embeddings.choice import EmbeddingChoice
from converter.families.controlnet import is_controlnet

if TYPE_CHECKING:
    from converter.export import ExportRequest

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
"""The parts that can be given beside a checkpoint, besides ControlNets."""

PLAIN = (
    "variant", "ema", "profile", "batch", "allow_unused", "prediction", "zero_terminal_snr", "link",
    "clip_skip", "family",
)  # fmt: skip
"""Fields that are plain values, under the same name."""


def export_record(request: ExportRequest) -> dict[str, Any]:
    """The request as JSON values; `export_request` reads it back."""
    parts = {part: _absolute(path) for part, path in request.parts.items()}
    adapters = [replace(a, path=a.path.absolute()) for a in request.adapters]
    embeddings = [replace(e, path=e.path.absolute()) for e in request.embeddings]
    given: dict[str, Any] = {
        "checkpoint": _absolute(request.checkpoint),
        **{part: path for part, path in parts.items() if not is_controlnet(part)},
        "controlnets": [path for part, path in parts.items() if is_controlnet(part)],
        "controlnet_merge": _absolute(request.controlnet_base),
        "loras": [str(adapter) for adapter in adapters],
        "embeddings": [str(embedding) for embedding in embeddings],
        "components": [*(request.components or ())],
        **{name: getattr(request, name) for name in PLAIN},
        "addresses": {str(path.absolute()): where for path, where in request.addresses.items()},
    }
    return {name: value for name, value in given.items() if value not in (None, False, [], {})}


def export_request(
    record: Mapping[str, Any], output: Path, local: Callable[[str], Path] = Path
) -> ExportRequest:
    """Read what `export_record` gives; `local` finds a file on this machine.

    Raises InputError for adapters and embeddings that cannot be meant.
    """
    from converter.export import ExportRequest

    def optional(name: str) -> Path | None:
        return local(record[name]) if name in record else None

    nets = record.get("controlnets", ())
    parts = {part: local(record[part]) for part in PARTS if part in record}
    parts |= {controlnet_name(index): local(path) for index, path in enumerate(nets)}
    return ExportRequest(
        checkpoint=optional("checkpoint"),
        output=output,
        adapters=tuple(AdapterChoice.parse(text, local) for text in record.get("loras", ())),
        components=tuple(record["components"]) if "components" in record else None,
        parts=parts,
        controlnet_base=optional("controlnet_merge"),
        embeddings=tuple(EmbeddingChoice.parse(t, local) for t in record.get("embeddings", ())),
        addresses={Path(path): where for path, where in record.get("addresses", {}).items()},
        **{name: record[name] for name in PLAIN if name in record},
    )


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
