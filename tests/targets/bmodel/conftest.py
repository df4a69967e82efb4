"""Small bmodels of made-up bytes, real ones of two sizes, and the vendor's tool to combine them."""

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from converter.sizes import Size
from examples.mini.score import FILES, RECIPES
from targets.compile import CompileRequest, compile_bundle
from targets.sophgo.bmodel.layout import Layout, write_frame
from targets.sophgo.bmodel.reading import Bmodel
from targets.sophgo.toolchain import TpuMlir
from tests.targets.bmodel.small import small_bmodel

SIZES = (Size(64, 64), Size(128, 64))
MakeBmodel = Callable[..., Path]
Fill = Callable[[Layout, Sequence[Bmodel], Path], None]
Tool = Callable[..., Any]
TwoSizes = Callable[..., list[Path]]


@pytest.fixture
def make_bmodel(tmp_path: Path) -> MakeBmodel:
    """Writes what `small_bmodel` makes, and returns its path."""

    def make(name: str, *args: Any, **options: Any) -> Path:
        path = tmp_path / f"{name}.bmodel"
        path.write_bytes(small_bmodel(name, *args, **options))
        return path

    return make


@pytest.fixture(scope="session")
def fill() -> Fill:
    """Writes a planned file with the weights of whole inputs, and their check codes."""

    def written(layout: Layout, wholes: Sequence[Bmodel], path: Path) -> None:
        write_frame(layout, path)
        with path.open("r+b") as file:
            for region in layout.weights:
                for part in region.parts:
                    file.seek(region.offset + part.offset)
                    file.write(wholes[part.source].bytes_of(part.binary))
                file.seek(region.offset)
                digest = hashlib.sha256(file.read(region.size)).digest()
                for place in region.check_codes:
                    file.seek(place)
                    file.write(digest)

    return written


@pytest.fixture(scope="session")
def model_tool(tpu_mlir: TpuMlir) -> Callable[..., str]:
    """The vendor's program: what it prints."""

    def run(*argv: object) -> str:
        program = [str(tpu_mlir.program("model_tool")), *map(str, argv)]
        done = subprocess.run(
            program, env=tpu_mlir.env(), capture_output=True, text=True, check=True
        )
        return done.stdout

    return run


@pytest.fixture(scope="session")
def printed(model_tool: Callable[..., str]) -> Callable[[Path], Any]:
    """Every table of a bmodel as the vendor's program reads it."""

    def read(path: Path) -> Any:
        text = model_tool("--print", path)
        return json.loads(re.sub(r"^( *)(\w+):", r'\1"\2":', text, flags=re.MULTILINE))

    return read


@pytest.fixture(scope="session")
def two_sizes(tpu_mlir: TpuMlir, tmp_path_factory: pytest.TempPathFactory) -> TwoSizes:
    """A component of the miniature, for a target: a file of its own for each of two sizes."""
    bundle = RECIPES["LCM-LoRA, 4 steps"].export(FILES, tmp_path_factory.mktemp("bundle"))

    def compiled(component: str, target: str = "bm1684x") -> list[Path]:
        made = []
        for size in SIZES:
            folder, chosen = tmp_path_factory.mktemp(component), (component,)
            request = CompileRequest(bundle.folder, target, (size,), folder, components=chosen)
            made.append(folder / compile_bundle(request).artifacts[0].path)
        return made

    return compiled
