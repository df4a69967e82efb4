"""Bundles that read the user's own files: the same values, the same outputs, next to no bytes."""

import errno
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import safetensors.torch
import torch

from converter.adapters.choice import AdapterChoice
from converter.bundle import Bundle
from converter.errors import InputError
from converter.export import ExportRequest, export
from converter.graph_record import graph_bytes
from converter.sizes import Size
from converter.weights import Array
from examples.random_checkpoint import write_checkpoint
from examples.small_models import MODELS
from passes.linked_weights import own_places, read_graph
from targets.compile import CompileRequest, compile_bundle
from tests.conftest import SmallModel

SIZE = Size(64, 64)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fused query, key and value; a projection that is stored transposed."""
    path = tmp_path_factory.mktemp("sdxl") / "sdxl.safetensors"
    write_checkpoint(path, MODELS["sdxl"])
    return path


def run(bundle: Bundle, component: str) -> list[Array]:
    """Run the bundle's own graph, as a user of ONNX Runtime would."""
    record = bundle.components[component]
    noise = np.random.default_rng(1)
    given = {
        port.name: noise.integers(1, 1000, shape).astype(port.dtype)
        if port.dtype.startswith("int")
        else noise.standard_normal(shape).astype(port.dtype)
        for port in record.interface.inputs
        for shape in (port.at(1, SIZE),)
    }
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(bundle.folder / record.graph, options)
    return session.run(None, given)  # type: ignore[no-any-return]


def assert_same(linked: Bundle, plain: Bundle) -> None:
    for name, record in plain.components.items():
        assert linked.components[name].weights_key == record.weights_key
        mine, theirs = linked.weights(name), plain.weights(name)
        assert set(mine.names()) == set(theirs.names())
        for tensor in theirs.names():
            assert mine.spec(tensor) == theirs.spec(tensor)
            found = mine.read(tensor)
            assert found.dtype == np.float32
            assert np.array_equal(found, theirs.read(tensor)), tensor
        for one, other in zip(run(linked, name), run(plain, name), strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)
        # Targets see one graph, so that one skeleton serves both.
        mine_graph, their_graph = (
            graph_bytes(read_graph(b.folder / b.components[name].graph)) for b in (linked, plain)
        )
        assert mine_graph == their_graph


def both(request: ExportRequest) -> tuple[Bundle, Bundle]:
    linked = replace(request, output=request.output / "linked", link=True)
    return export(linked), export(replace(request, output=request.output / "plain"))


def own(bundle: Bundle, component: str) -> set[str]:
    """The tensors that were written."""
    return set(own_places(ir.load(bundle.folder / bundle.components[component].graph)))


def test_nothing_is_copied_and_everything_is_the_same(
    small_model: SmallModel, tmp_path: Path
) -> None:
    linked, plain = both(ExportRequest(small_model.checkpoint, tmp_path))
    assert_same(linked, plain)
    for component, record in linked.components.items():
        folder = linked.folder / component
        assert {path.name for path in folder.iterdir()} == {"model.onnx", "0-small.safetensors"}
        assert (folder / "0-small.safetensors").samefile(small_model.checkpoint)
        assert record.weights_bytes == 0
    assert "--link" in linked.command


def test_fused_and_transposed_tensors_are_read_where_they_are(sdxl: Path, tmp_path: Path) -> None:
    linked, plain = both(ExportRequest(sdxl, tmp_path, profile="diffusers"))
    assert_same(linked, plain)
    assert all(own(linked, component) == set() for component in linked.components)


def test_only_what_an_adapter_changes_is_written(small_model: SmallModel, tmp_path: Path) -> None:
    request = ExportRequest(small_model.checkpoint, tmp_path, (AdapterChoice(small_model.lora),))
    linked, plain = both(request)
    assert_same(linked, plain)
    (changes,) = linked.components["unet"].changes.values()
    assert {name.removesuffix(".T") for name in own(linked, "unet")} == set(changes)
    assert own(linked, "vae_decoder") == set()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes_are_widened_by_the_graph(
    dtype: torch.dtype, small_model: SmallModel, tmp_path: Path
) -> None:
    state = safetensors.torch.load_file(small_model.checkpoint)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({n: t.to(dtype) for n, t in state.items()}, path)
    request = ExportRequest(path, tmp_path, components=("text_encoder", "vae_encoder"))
    linked, plain = both(request)
    assert_same(linked, plain)
    assert own(linked, "vae_encoder") == set()


def test_what_no_graph_can_widen_is_written(small_model: SmallModel, tmp_path: Path) -> None:
    state = safetensors.torch.load_file(small_model.checkpoint)
    name = "first_stage_model.encoder.conv_in.weight"
    state[name] = state[name].to(torch.float8_e4m3fn)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, path)
    linked, plain = both(ExportRequest(path, tmp_path, components=("vae_encoder",)))
    assert_same(linked, plain)
    assert own(linked, "vae_encoder") == {"encoder.conv_in.weight"}


def test_a_pickle_is_linked_too(small_model: SmallModel, tmp_path: Path) -> None:
    state = safetensors.torch.load_file(small_model.checkpoint)
    name = "first_stage_model.encoder.conv_in.weight"
    state[name] = state[name].permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3)  # not in order
    torch.save({"state_dict": state}, tmp_path / "model.ckpt")
    request = ExportRequest(tmp_path / "model.ckpt", tmp_path, components=("vae_encoder",))
    linked, plain = both(request)
    assert_same(linked, plain)
    assert own(linked, "vae_encoder") == {"encoder.conv_in.weight"}


@pytest.fixture
def copied(small_model: SmallModel, tmp_path: Path) -> ExportRequest:
    """A linked export of a checkpoint that may be spoilt."""
    checkpoint = tmp_path / "model.safetensors"
    shutil.copyfile(small_model.checkpoint, checkpoint)
    return ExportRequest(checkpoint, tmp_path / "out", components=("vae_decoder",), link=True)


def spoil(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")


def unlink(path: Path) -> None:
    (path.parent / "out" / "vae_decoder" / "0-model.safetensors").unlink()


def test_a_checkpoint_may_be_moved_or_deleted(copied: ExportRequest) -> None:
    bundle = export(copied)
    before = run(bundle, "vae_decoder")
    assert copied.checkpoint is not None
    copied.checkpoint.unlink()
    assert np.array_equal(run(Bundle.load(bundle.folder), "vae_decoder")[0], before[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [(spoil, "changed since .* was linked to it: export again"), (unlink, "is gone: export again")],
)
def test_a_file_that_changed_is_noticed(
    change: Callable[[Path], None], message: str, copied: ExportRequest
) -> None:
    export(copied)
    assert copied.checkpoint is not None
    change(copied.checkpoint)
    with pytest.raises(InputError, match=message):
        Bundle.load(copied.output)
    export(copied)
    Bundle.load(copied.output)


def test_linked_and_copied_replace_each_other(copied: ExportRequest, tmp_path: Path) -> None:
    plain = export(replace(copied, output=tmp_path / "plain", link=False))
    linked = export(copied)
    for request in (replace(copied, link=False), copied, replace(copied, link=False)):
        again = export(request)
        assert_same(again, plain)
        names = {path.name for path in (again.folder / "vae_decoder").iterdir()}
        other = "0-model.safetensors" if request.link else "model.onnx.data"
        assert names == {"model.onnx", other}
    wanted = (plain.folder / "vae_decoder/model.onnx.data").read_bytes()
    assert (linked.folder / "vae_decoder/model.onnx.data").read_bytes() == wanted


def test_targets_get_the_weights_in_one_file_made_once(
    copied: ExportRequest, tmp_path: Path
) -> None:
    bundle = export(copied)
    notes: list[str] = []
    for name in ("first", "second"):
        request = CompileRequest(bundle.folder, "onnxruntime", (SIZE,), tmp_path / name)
        manifest = compile_bundle(request, lambda event: notes.append(event.note))
    assert sum("linked weights are written out" in note for note in notes) <= 1
    (artifact,) = manifest.artifacts
    assert artifact.weights_key == bundle.components["vae_decoder"].weights_key
    session = onnxruntime.InferenceSession(tmp_path / "second" / artifact.path)
    port = bundle.components["vae_decoder"].interface.inputs[0]
    latent = np.random.default_rng(1).standard_normal(port.at(1, SIZE)).astype(np.float32)
    (found,) = session.run(None, {port.name: latent})
    np.testing.assert_allclose(found, run(bundle, "vae_decoder")[0], atol=2e-5)


def test_another_disk_is_refused_and_nothing_is_left(
    copied: ExportRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Elsewhere:
        def stat(self) -> SimpleNamespace:
            return SimpleNamespace(st_dev=-1)

    monkeypatch.setattr("converter.linking.existing_parent", lambda _: Elsewhere())
    with pytest.raises(InputError, match=r"cannot hold a link .* name a folder on the disk"):
        export(copied)
    assert not copied.output.exists()


def test_a_file_system_without_links_is_told(
    copied: ExportRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(InputError, match=r"\(Operation not permitted\): .* leave --link out"):
        export(copied)
    assert [p for p in copied.output.rglob("*") if p.suffix in (".onnx", ".partial")] == []


def test_what_was_read_is_let_go(small_model: SmallModel, tmp_path: Path) -> None:
    """The user's file is larger than memory, perhaps: what is mapped of it counts as ours."""
    request = ExportRequest(small_model.checkpoint, tmp_path / "bundle", link=True)
    bundle = export(request)
    weights = bundle.weights("unet")
    (link,) = bundle.components["unet"].linked
    name_there = str((bundle.folder / "unet" / link).resolve())

    def mapped() -> int:
        """Kilobytes of the checkpoint that this process holds."""
        entries = Path("/proc/self/smaps").read_text().split("VmFlags")
        ours = [entry for entry in entries if name_there in entry]
        return sum(int(entry.partition("Rss:")[2].split()[0]) for entry in ours)

    total = 0
    for name in weights.names():
        total += weights.read(name).size * 2 // 1024
        assert mapped() > 0
        weights.forget(name)
    assert mapped() < total / 2  # a page that is touched brings its neighbours along
