"""Whether a phone has the room: stages one after the other, or all of it at once."""

from dataclasses import replace
from pathlib import Path

import pytest

from converter.sizes import Size
from targets.base import Artifact
from targets.driver import PortAt
from targets.manifest import Manifest
from targets.tvm.host_operator import MODEL, weights_file
from targets.tvm.memory_plan import DRIVER, SYSTEM, Plan, plan
from targets.tvm.parameters import Parameter
from targets.tvm.program import PROGRAM_FILE, HostOperator, Program

SIZE = Size(1024, 1024)


def artifact(component: str) -> Artifact:
    return Artifact(
        component, "adreno-clml", "adreno", SIZE, 1, "f16", f"{component}/{SIZE}.library.tar",
        (), "", "", "", False, "", "bound", None,
    )  # fmt: skip


def planned(folder: Path, weights: dict[str, float], tensors: float = 0.5) -> Plan:
    """A plan of components with so many gigabytes of weights, and of tensors."""
    for component, gigabytes in weights.items():
        (folder / component).mkdir(exist_ok=True)
        parameter = Parameter.of("W", (), (round(gigabytes * 1e9) // 4,), "float32")
        port = PortAt("x", "float32", (1,))
        program = Program((port,), (port,), (parameter,), (), 0, round(tensors * 1e9), 0)
        program.save(folder / component / f"{SIZE}.{PROGRAM_FILE}")
    manifest = Manifest(folder, folder, {}, [])
    return plan(manifest, [artifact(component) for component in weights])


def test_stages_take_what_the_largest_takes(tmp_path: Path) -> None:
    found = planned(tmp_path, {"text_encoder": 0.5, "unet": 2.0, "vae_decoder": 0.25})
    assert [stage for stage, _ in found.stages] == ["text", "denoise", "decode"]
    # one tensor holds all the weights, so loading takes more than running
    assert found.staged == pytest.approx(2.0e9 + 2.0e9 + DRIVER, rel=1e-6)
    assert found.together == pytest.approx(2.75e9 + 2.0e9 + DRIVER, rel=1e-6)


def test_what_the_host_computes_takes_weights_and_tensors_of_its_own(tmp_path: Path) -> None:
    (_, (alone,)) = planned(tmp_path, {"vae_decoder": 0.25}, 1.0).stages[0]
    program_file = tmp_path / "vae_decoder" / f"{SIZE}.{PROGRAM_FILE}"
    port = PortAt("x", "float32", (1,))
    program = replace(Program.load(program_file), host=HostOperator(port, port, 7, 300_000_000))
    program.save(program_file)
    assert Program.load(program_file) == program
    weights_file(tmp_path / "vae_decoder" / f"{SIZE}.{MODEL}").write_bytes(bytes(1000))
    manifest = Manifest(tmp_path, tmp_path, {}, [])
    (_, (found,)) = plan(manifest, [artifact("vae_decoder")]).stages[0]
    assert found.weights == alone.weights + 1000
    assert found.activations == alone.activations + 300_000_000


@pytest.mark.parametrize("gigabytes", SYSTEM)
def test_what_does_not_fit_is_refused_with_the_reason(tmp_path: Path, gigabytes: int) -> None:
    room = gigabytes - SYSTEM[gigabytes] / 1e9
    fits = planned(tmp_path, {"unet": 0.35 * room, "vae_decoder": 0.35 * room}, 0.1 * room)
    assert fits.refusal(gigabytes, staged=True) is None
    refusal = fits.refusal(gigabytes, staged=False)
    assert refusal is not None
    assert f"a phone with {gigabytes} GB has about {room:.1f} GB" in refusal
    assert "in one process it needs" in refusal
    large = planned(tmp_path, {"unet": room}, 0.1)
    refusal = large.refusal(gigabytes, staged=True)
    assert refusal is not None
    assert "unet 1024x1024 f16" in refusal
    assert "in stages it needs" in refusal
