"""Shared inputs: a small checkpoint in SD1.5's layout, a LoRA for it, and bundles made from them.

They are made once per run. Traced templates and compiled skeletons stay in `SDCONV_HOME`, which
`make test` points into the project's own environment.
"""

from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from converter.adapters.choice import AdapterChoice
from converter.bundle import Bundle
from converter.export import ExportRequest, export
from examples.random_checkpoint import write_checkpoint, write_lora
from examples.small_models import SMALL

# A busy machine must not fail a property, and a failure must come back on the next run.
hypothesis.settings.register_profile("house", deadline=None, derandomize=True)
hypothesis.settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: one that began last would keep one process busy alone.

    Those that compile alternate with those that do not: the compilers of two processes take turns.
    """
    slow = dict.fromkeys(item.path for item in items if item.get_closest_marker("slow"))
    compiling = {item.path for item in items if "tpu_mlir" in getattr(item, "fixturenames", ())}
    rank: dict[Path, int] = {}
    for turn, kind in enumerate(([p for p in slow if p in compiling], slow.keys() - compiling)):
        rank |= {path: 2 * place + turn for place, path in enumerate(sorted(kind))}
    last = len(items)
    items.sort(key=lambda item: rank.get(item.path, last))


@dataclass(frozen=True)
class SmallModel:
    """A checkpoint, a LoRA for it, and where it is needed a ControlNet."""

    checkpoint: Path
    lora: Path
    controlnet: Path | None = None


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    folder = tmp_path_factory.mktemp("model")
    model = SmallModel(folder / "small.safetensors", folder / "lora.safetensors")
    write_checkpoint(model.checkpoint, SMALL)
    write_lora(model.lora, SMALL)
    return model


@pytest.fixture(scope="session")
def small_bundle(small_model: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Profile sd-lcm-tpu, one LoRA merged at 0.8."""
    adapters = (AdapterChoice(small_model.lora, 0.8),)
    output = tmp_path_factory.mktemp("bundle")
    return export(ExportRequest(small_model.checkpoint, output, adapters, profile="sd-lcm-tpu"))


@pytest.fixture(scope="session")
def diffusers_bundle(small_model: SmallModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Profile diffusers, no LoRA."""
    output = tmp_path_factory.mktemp("bundle-diffusers")
    return export(ExportRequest(small_model.checkpoint, output, profile="diffusers"))
