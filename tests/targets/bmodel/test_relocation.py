"""Weights shared between sizes that pack some of them otherwise: addresses, bytes, and results."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from converter.errors import InputError
from converter.files import sha256_of
from converter.progress import silent
from converter.weights import Array
from targets.base import CompileJob
from targets.driver import PortAt
from targets.sophgo.bmodel.commands import Moves, Relocated
from targets.sophgo.bmodel.cutting import cut_weights
from targets.sophgo.bmodel.kinds import Binary
from targets.sophgo.bmodel.layout import Layout
from targets.sophgo.bmodel.reading import Bmodel, read_bmodel, stages
from targets.sophgo.bmodel.relocation import Located, plan_shared
from targets.sophgo.bmodel.schema import NetParameter
from targets.sophgo.chips import CHIPS
from targets.sophgo.compilation import BMODEL_FILE, compile_graph
from targets.sophgo.emulator import EmulatorRunner
from targets.sophgo.graphs import StaticGraph
from targets.sophgo.record import StageRecord
from targets.sophgo.toolchain import TpuMlir
from tests.targets.bmodel.small import message
from tests.targets.bmodel.times import assert_same_but_time

MakeBmodel = Callable[..., Path]
Fill = Callable[[Layout, Sequence[Bmodel], Path], None]

A, B, C = b"A" * 4096, b"B" * 8192, b"C" * 4096


def located(path: Path, bare: Path | None = None) -> Located:
    """A file whose weights are named by what they are; read without them where `bare` is given."""
    whole = read_bmodel(path)
    data = whole.bytes_of(whole.weights[0])
    ((_, stage),) = stages(whole.model)
    assert stage.coeff_mem is not None
    names = {
        at.offset: hashlib.sha256(data[at.offset : at.offset + at.size]).hexdigest()
        for at in stage.coeff_mem.location
    }
    if bare is None:
        return Located(whole, names)
    cut_weights(whole, bare)
    return Located(read_bmodel(bare), names)


def share(paths: Sequence[Path], fill: Fill, folder: Path) -> Bmodel:
    """The planned file, with weights: planned from files that have none."""
    cut = [located(path, folder / f"{number}.cut") for number, path in enumerate(paths)]
    fill(plan_shared(cut), [read_bmodel(path) for path in paths], folder / "shared.bmodel")
    return read_bmodel(folder / "shared.bmodel")


def addresses(bmodel: Bmodel, stage: NetParameter) -> list[int]:
    """What the DMA commands of a stage read, but for the last, which has no address."""
    (group,) = stage.cmd_group
    assert group.binary_gdma is not None
    words = np.frombuffer(bmodel.bytes_of(group.binary_gdma), "<u4").reshape(-1, 24)[:-1]
    return [int(low) | int(high) << 32 for low, high in words[:, 16:18]]


def seen(bmodel: Bmodel, stage: NetParameter) -> list[bytes]:
    """The first bytes that each command reads, where it reads weights."""
    memory = stage.coeff_mem
    assert memory is not None
    assert memory.binary_coeff is not None
    region = bmodel.bytes_of(memory.binary_coeff)
    at = [address - memory.address for address in addresses(bmodel, stage)]
    return [region[offset : offset + 4096] for offset in at if offset < len(region)]


@pytest.mark.parametrize(
    ("other", "size"),
    [
        ({"a": A, "b": B}, 12288),
        ({"b": B, "a": A}, 12288),
        ({"b": B, "c": C}, 16384),
        ({"c": C, "b": B}, 16384),
        ({"c": C, "b": C}, 20480),  # one content under two names is two weights, as the vendor's
        ({"b": A}, 16384),
    ],
)
def test_every_command_reads_the_same_bytes_as_before(
    other: dict[str, bytes], size: int, make_bmodel: MakeBmodel, fill: Fill, tmp_path: Path
) -> None:
    paths = [
        make_bmodel("one", weights={"a": A, "b": B}),
        make_bmodel("two", width=16, weights=other),
    ]
    shared = share(paths, fill, tmp_path)
    (region,) = shared.weights
    assert region == Binary(0, size)
    for path, (_, stage) in zip(paths, stages(shared.model), strict=True):
        alone = read_bmodel(path)
        ((_, before),) = stages(alone.model)
        assert seen(shared, stage) == seen(alone, before)
        assert stage.ctx_addr == 0x1_0000_0000 + size
        assert addresses(shared, stage)[-1] == stage.ctx_addr  # the last one reads the input
        moved = stage.ctx_addr - before.ctx_addr
        for ports in ("input_tensor", "output_tensor"):
            for tables in (stage, stage.sub_net[0]):
                (tensor,) = getattr(tables, ports)
                (was,) = getattr(before, ports)
                assert tensor.device_addr == was.device_addr + moved
        assert stage.coeff_mem is not None
        digest = hashlib.sha256(shared.bytes_of(region)).digest()
        assert stage.coeff_mem.check_code == digest
        assert sum(at.size for at in stage.coeff_mem.location) == size
    assert shared.model.bmodel_type == 1


def test_one_file_comes_out_as_it_is(make_bmodel: MakeBmodel, fill: Fill, tmp_path: Path) -> None:
    path = make_bmodel("one")
    assert share([path], fill, tmp_path).path.read_bytes() == path.read_bytes()


def test_another_chip_is_refused_by_name(make_bmodel: MakeBmodel) -> None:
    paths = [make_bmodel("one", chip="SG2262"), make_bmodel("two", width=16, chip="SG2262")]
    with pytest.raises(InputError, match="the commands of SG2262 are not known"):
        plan_shared([located(path) for path in paths])


def test_every_core_and_engine_reads_the_same_bytes_as_before(
    make_bmodel: MakeBmodel, fill: Fill, tmp_path: Path
) -> None:
    paths = [
        make_bmodel("one", chip="BM1690", weights={"a": A, "b": B}),
        make_bmodel("two", chip="BM1690", width=16, weights={"b": B, "c": C}),
    ]
    shared = share(paths, fill, tmp_path)
    (region,) = shared.weights
    data = shared.bytes_of(region)
    ((_, first), (_, second)) = stages(shared.model)
    read = []
    for core in second.sub_net[0].core_commands:
        (group,), (sdma,) = core.gdma_tiu_commands, core.sdma_commands
        assert group.binary_gdma is not None
        for binary in (group.binary_gdma, sdma):
            commands = shared.bytes_of(binary)
            assert commands.startswith(message(3))
            words = np.frombuffer(commands, "<u4")[4 : 4 + 24 * (group.gdma_num - 2)]
            read.append([int(words[at + 16]) | int(words[at + 17]) << 32 for at in (0, 24)])
    (b, c), sdma_reads = read[0], read[1]
    assert read == [[b, c], sdma_reads] * 2
    at = [address - 0x1_0000_0000 for address in (b, c, sdma_reads[0])]
    assert [data[offset : offset + 4096] for offset in at] == [B[:4096], C, C]
    assert at == [4096, 12288, 12288]
    assert first.core_num == second.core_num == 2


def test_the_addresses_of_a_bm1690_have_45_bits(make_bmodel: MakeBmodel) -> None:
    base, words = 0x100_0000_0000, np.zeros((2, 24), np.uint32)
    words[0, 1] = 0xFFFF_FFE7  # gather
    words[0, 16:18] = 0x1000, 0xABCD_E100
    words[0, 20:22] = 0x10, 0xABCD_F100  # another bit of the address is set
    words[1, :2] = 8, 6
    moves = Moves((base,), (0x2000,), (0x10_0000_0000,), 0x200_0000_0000, 0)
    bmodel = read_bmodel(make_bmodel("one", chip="BM1690"))
    content = bmodel.path.read_bytes()
    bmodel.path.write_bytes(content[: len(bmodel.header)] + words.tobytes() + content[0:4096])
    (moved,) = Relocated(bmodel, Binary(0, words.nbytes), 2, moves).chunks()
    words[0, 17] += 0x10
    np.testing.assert_array_equal(np.frombuffer(moved, "<u4").reshape(2, 24), words)


@pytest.mark.parametrize("count", [None, 2])
def test_damaged_commands_are_refused(count: int | None, make_bmodel: MakeBmodel) -> None:
    bmodel = read_bmodel(make_bmodel("one", chip="BM1690"))
    moves = Moves((0x1_0000_0000,), (4096,), (0,), 0x2_0000_0000, 0)
    (core, _) = next(stages(bmodel.model))[1].sub_net[0].core_commands
    (sdma,) = core.sdma_commands
    with pytest.raises(InputError, match="damaged bmodel: it lacks DMA commands"):
        list(Relocated(bmodel, Binary(sdma.start, 16), count, moves).chunks())
    content = bytearray(bmodel.path.read_bytes())
    content[len(bmodel.header) + sdma.start + 4] = 5
    bmodel.path.write_bytes(content)
    with pytest.raises(InputError, match="a short command of type 5 is not known"):
        list(Relocated(bmodel, sdma, count, moves).chunks())


@pytest.mark.parametrize("kind", [0, 2, 6, 7, 8])
def test_which_words_are_addresses(kind: int, make_bmodel: MakeBmodel, tmp_path: Path) -> None:
    base = 0x1_0000_0000
    words = np.zeros((2, 24), np.uint32)
    words[0, 1] = 0xFFFF_FFF0 | kind
    for word, address in ((16, base + 8), (18, base + 4096), (20, base + 12), (22, base + 8)):
        words[0, word], words[0, word + 1] = address & 0xFFFFFFFF, 0xABCDEF00 | address >> 32
    path = make_bmodel("one")
    bmodel = read_bmodel(path)
    (gdma,) = (group.binary_gdma for _, s in stages(bmodel.model) for group in s.cmd_group)
    assert gdma is not None
    content = bytearray(path.read_bytes())
    at = len(bmodel.header) + gdma.start
    content[at : at + words.nbytes] = words.tobytes()
    path.write_bytes(content)
    moves = Moves((base,), (4096,), (0x2_0000_0000,), base + 4096, 16)
    (moved,) = Relocated(bmodel, Binary(gdma.start, words.nbytes), 2, moves).chunks()
    expected = words.copy()
    expected[0, 17] += 2
    expected[0, 18] += 16
    if kind in {2, 7, 8}:
        expected[0, 21] += 2
    np.testing.assert_array_equal(np.frombuffer(moved, "<u4").reshape(2, 24), expected)


def test_an_address_between_the_weights_is_refused() -> None:
    base = 0x1_0000_0000
    moves = Moves((base, base + 8192), (4096, 4096), (0, 4096), base + 16384, 0)
    inside = np.array([4, base, base + 8192 + 4095, base + 16384], np.int64)
    assert moves(inside).tolist() == [4, base, base + 16383, base + 16384]
    for lost in (base + 4096, base + 12288):
        with pytest.raises(ValueError, match=f"{lost:#x} belongs to no weight"):
            moves(np.array([lost], np.int64))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("component", "target"),
    [
        ("vae_encoder", "bm1684x"),
        ("vae_decoder", "bm1684x"),
        ("vae_decoder", "bm1688-2core"),
    ],
)
def test_the_vendors_shared_file_byte_for_byte(
    component: str,
    target: str,
    two_sizes: Callable[..., list[Path]],
    model_tool: Callable[..., str],
    fill: Fill,
    tmp_path: Path,
) -> None:
    """The decoder's two sizes pack three tensors otherwise, the encoder's none."""
    paths = two_sizes(component, target)
    model_tool("--combine_coeff", *paths, "-o", tmp_path / "theirs.bmodel")
    ours = share(paths, fill, tmp_path).path.read_bytes()
    theirs = (tmp_path / "theirs.bmodel").read_bytes()
    assert_same_but_time(ours, theirs)


GRAPH = """
<ir_version: 8, opset_import: ["": 18]>
small (float[1, 4, 8, {width}] picture) => (float[1, 8, 16] product)
{{
    convolved = Conv <pads = [1, 1, 1, 1]> (picture, kernel, bias)
    rows = Constant <value = int64[3] {{1, 8, {length}}}> ()
    flat = Reshape (convolved, rows)
    product = MatMul (flat, matrix)
}}
"""


def weights(width: int) -> dict[str, Array]:
    """The convolution's are the same at every width, the matrix has more rows at a greater one."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (8, 4, 3, 3), "bias": (8,), "matrix": (8 * width, 16)}
    return {name: rng.standard_normal(s).astype(np.float32) for name, s in shapes.items()}


def answer(picture: Array, kernel: Array, bias: Array, matrix: Array) -> Array:
    """The network in numpy, in double precision."""
    padded = np.pad(picture.astype(np.float64)[0], ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    convolved = np.einsum("chwij,ocij->ohw", windows, kernel) + bias[:, None, None]
    product: Array = convolved.reshape(1, 8, -1) @ matrix
    return product


def compiled(toolchain: TpuMlir, width: int, folder: Path) -> StageRecord:
    model = onnx.parser.parse_model(GRAPH.format(width=width, length=8 * width))
    for name, array in weights(width).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    folder.mkdir()
    onnx.save(
        model, folder / "small.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    graph = StaticGraph(
        folder / "small.onnx",
        sha256_of(folder / "small.onnx"),
        (PortAt("picture", "float32", (1, 4, 8, width)),),
        (PortAt("product", "float32", (1, 8, 16)),),
    )
    job = CompileJob("small", graph.path, graph.sha256, (), None, 1, "f32")
    compile_graph(toolchain, CHIPS["bm1684x"], job, graph, folder / "w", folder, silent)
    return StageRecord.load(folder)


@pytest.mark.slow
def test_both_sizes_of_a_shared_file_compute_what_numpy_computes(
    tpu_mlir: TpuMlir, fill: Fill, tmp_path: Path
) -> None:
    widths = (16, 8)
    records = [compiled(tpu_mlir, width, tmp_path / str(width)) for width in widths]
    shared = share([tmp_path / str(width) / BMODEL_FILE for width in widths], fill, tmp_path)
    _, (_, second) = stages(shared.model)
    ((_, alone),) = stages(read_bmodel(tmp_path / "8" / BMODEL_FILE).model)
    assert addresses(shared, second) != addresses(read_bmodel(tmp_path / "8" / BMODEL_FILE), alone)
    for width, record in zip(widths, records, strict=True):
        picture = np.random.default_rng(width).standard_normal((1, 4, 8, width)).astype(np.float32)
        with EmulatorRunner(tpu_mlir, CHIPS["bm1684x"], shared.path, record) as runner:
            (product,) = runner.infer({"picture": picture}).values()
        expected = answer(picture, **weights(width))
        # Another order of summation, nothing else.
        assert np.linalg.norm(product - expected) < 1e-5 * np.linalg.norm(expected)
