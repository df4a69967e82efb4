"""Small bmodels of made-up bytes, real ones of two sizes, and the vendor's tool to combine them."""

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from converter.cache import Cache
from converter.sizes import Size
from examples.mini.score import FILES, RECIPES
from targets.compile import CompileRequest, compile_bundle
from targets.sophgo.bmodel.kinds import Binary
from targets.sophgo.bmodel.layout import Layout, write_frame
from targets.sophgo.bmodel.reading import Bmodel
from targets.sophgo.bmodel.schema import (
    CmdGroup,
    CoeffMem,
    KernelModule,
    Location,
    Model,
    Net,
    NetParameter,
    Shape,
    SubNet,
    Tensor,
)
from targets.sophgo.bmodel.writing import aligned, header_of
from targets.sophgo.toolchain import TpuMlir

SIZES = (Size(64, 64), Size(128, 64))
WEIGHTS_AT = 0x1_0000_0000
"""Device address of the first byte that a BM1684X gives away."""

MakeBmodel = Callable[..., Path]
Fill = Callable[[Layout, Sequence[Bmodel], Path], None]
Tool = Callable[..., Any]


def command(address: int) -> bytes:
    """A DMA command of a BM1684X of 96 bytes that reads from `address`; type 0 moves a tensor."""
    words = [0] * 24
    words[16], words[17] = address & 0xFFFFFFFF, address >> 32
    return b"".join(word.to_bytes(4, "little") for word in words)


@pytest.fixture
def make_bmodel(tmp_path: Path) -> MakeBmodel:
    """Writes a bmodel of one stage: `width` of its input, its packed `weights` by name."""

    def make(
        name: str,
        width: int = 8,
        weights: dict[str, bytes] | None = None,
        net: str = "unet",
        chip: str = "BM1684X",
    ) -> Path:
        weights = {"a": b"A" * 4096, "b": b"B" * 8192} if weights is None else weights
        locations, region = [], b""
        for key, data in weights.items():
            locations.append(Location(key, len(region), len(data)))
            region += data
        address = WEIGHTS_AT + len(region)
        commands = b"".join(command(WEIGHTS_AT + at.offset) for at in locations)
        commands += command(address) + bytes(96)
        runs = {"kernel": b"kernel" * 1000, "weights": region, "bdc": name.encode() * 40}
        runs["gdma"] = commands
        content, at = b"", dict[str, Binary]()
        for key, data in runs.items():
            at[key] = Binary(len(content), len(data))
            content += data.ljust(aligned(len(data)), b"\0")
        group = CmdGroup(
            bdc_num=7,
            gdma_num=len(commands) // 96,
            binary_bdc=at["bdc"],
            binary_gdma=at["gdma"],
            bdc_cmd_byte=at["bdc"].size,
            gdma_cmd_byte=at["gdma"].size,
        )
        shape = (Shape((1, 4, 8, width)),)
        inputs = (Tensor("sample", device_addr=address, shape=shape),)
        outputs = (Tensor("noise", device_addr=address + 4096, shape=shape),)
        stage = NetParameter(
            inputs,
            outputs,
            ctx_addr=address,
            ctx_size=8192 * width,
            coeff_mem=CoeffMem(
                WEIGHTS_AT, hashlib.sha256(region).digest(), at["weights"], tuple(locations)
            ),
            cmd_group=(group,),
            sub_net=(SubNet(0, (group,), (), inputs, outputs, id=0, next_subnet_ids=(-1,)),),
            core_num=1,
            dynamic_combined_coeff_offset=len(region),
        )
        model = Model(
            "B",
            "2.2+v1.30.2-20260831",
            "Sat Nov 21 13:59:50 2026\n",
            chip,
            (Net(net, (stage,)),),
            neuron_size=stage.ctx_size,
            kernel_module=KernelModule("kernel.so", at["kernel"]),
            device_num=1,
        )
        path = tmp_path / f"{name}.bmodel"
        path.write_bytes(header_of(model, len(content)) + content)
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
def two_sizes(
    tpu_mlir: TpuMlir, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], list[Path]]:
    """A component of the miniature, compiled at two sizes by the vendor or in the cache."""
    bundle = RECIPES["LCM-LoRA, 4 steps"].export(FILES, tmp_path_factory.mktemp("bundle"))

    def compiled(component: str) -> list[Path]:
        folder = tmp_path_factory.mktemp(component)
        request = CompileRequest(bundle.folder, "bm1684x", SIZES, folder, components=(component,))
        made = compile_bundle(request).artifacts
        skeletons = Cache("skeletons").folder
        return [skeletons / artifact.key[:32] / "model.bmodel" for artifact in made]

    return compiled
