"""What the host runs of a program: what MNN takes for it, and that MNN must be there."""

from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest

from converter.errors import InputError
from converter.progress import silent
from passes.attend_by_rows import AttendByRowsPass
from targets.base import CompileJob, ToolchainError
from targets.tvm.host_operator import convert_part, tensor_bytes
from targets.tvm.target import TvmTarget
from targets.tvm.toolchain import Tvm
from tests.passes.graphs import parse
from tests.targets.sophgo_jobs import Weights

ATTENTION = """
part (float[1,8,4096] attention_input) => (float[1,8,4096] attention_output)
{
    tokens = Transpose<perm: ints = [0, 2, 1]>(attention_input)
    scores = MatMul(tokens, attention_input)
    shares = Softmax<axis: int = -1>(scores)
    mixed = MatMul(shares, tokens)
    attention_output = Transpose<perm: ints = [0, 2, 1]>(mixed)
}"""


@pytest.fixture
def job(tmp_path: Path) -> CompileJob:
    return CompileJob("vae_decoder", tmp_path, "", (), None, 1, "f16")


def test_without_mnn_the_command_that_installs_it_is_said(
    job: CompileJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path))
    with pytest.raises(ToolchainError, match="run 'sdconv toolchain install mnn'"):
        convert_part(parse(ATTENTION), job, tmp_path, silent)


def test_scores_in_pieces_take_the_memory_of_one_piece() -> None:
    tokens, scores = 4 * 8 * 4096, 4 * 4096 * 4096  # bytes
    part = parse(ATTENTION)
    assert tensor_bytes(part) == 2 * tokens + tokens + 2 * scores
    AttendByRowsPass(scores // 4)(part)
    # ports; the input, the tokens and two results wait while the third piece has its shares
    assert tensor_bytes(part) == 2 * tokens + 2.5 * tokens + 2 * scores / 4


def test_what_float16_cannot_hold_is_refused_where_the_host_cannot_have_it(
    job: CompileJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDCONV_HOME", str(tmp_path))
    monkeypatch.setattr(Tvm, "check_ready", lambda _: None)
    again = "again = Softmax(mixed)\nattention_output = Transpose<perm: ints = [0, 2, 1]>(again)"
    twice = ATTENTION.replace("attention_output = Transpose<perm: ints = [0, 2, 1]>(mixed)", again)
    ir.save(parse(twice), tmp_path / "model.onnx")
    shapes = (("attention_input", (1, 8, 4096)),)
    mine = replace(job, graph=tmp_path / "model.onnx", input_shapes=shapes)
    reason = r"one of 2, and one is cut out\): compile with --precision vae_decoder=f32"
    with pytest.raises(InputError, match=reason):
        TvmTarget("adreno-clml").compile(mine, Weights({}, ""), silent)
