"""Another recipe into the same folder: what is written, who is left alone, what a kill leaves.

The reference is always a fresh export of the same recipe, byte for byte.
"""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from converter.adapters.choice import AdapterChoice
from converter.bundle import Bundle
from converter.errors import InputError
from converter.export import ExportRequest, export
from examples.random_checkpoint import write_checkpoint, write_lora
from examples.small_models import SMALL
from passes.linked_weights import read_graph
from passes.weights import weight_places
from tests.conftest import SmallModel

ADAPTED = ("text_encoder", "unet")

Written = dict[str, set[int]]
"""Component -> offsets of the tensors that were written into its file."""


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    written: Written = {}
    pwrite = os.pwrite

    def watch(handle: int, data: bytes, offset: int) -> int:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        written.setdefault(path.parent.name, set()).add(offset)
        return pwrite(handle, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", watch)
        yield written


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> SmallModel:
    """Another checkpoint, and a LoRA for the attention alone."""
    folder = tmp_path_factory.mktemp("second")
    model = SmallModel(folder / "second.safetensors", folder / "lora.safetensors")
    write_checkpoint(model.checkpoint, SMALL, seed=7)
    write_lora(model.lora, SMALL, rank=2, seed=5)
    return model


def request(model: SmallModel, output: Path, *loras: str, **options: Any) -> ExportRequest:
    options = {"components": ADAPTED, **options}
    choices = tuple(AdapterChoice.parse(text) for text in loras)
    return ExportRequest(model.checkpoint, output, choices, **options)


def differing(before: Bundle, after: Bundle) -> Written:
    """Where tensors of two bundles differ, by comparing their bytes."""
    found: Written = {}
    for name in after.components:
        old, new = before.weights(name), after.weights(name)
        places = weight_places(read_graph(after.folder / after.components[name].graph))
        offsets = {
            place.offset
            for tensor, place in places.items()
            if old.read(tensor).tobytes() != new.read(tensor).tobytes()
        }
        if offsets:
            found[name] = offsets
    return found


def same(made: Bundle, fresh: Bundle) -> bool:
    loaded = Bundle.load(made.folder).components
    return loaded == fresh.components and all(
        (made.folder / file).read_bytes() == (fresh.folder / file).read_bytes()
        and loaded[name].changes == Bundle.load(fresh.folder).components[name].changes
        for name, component in fresh.components.items()
        for file in (component.graph, component.weights)
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["{first}:0.8"], ["{first}:0.5"]),
        (["{first}:0.8"], ["{first}:0.8,mid=0.1"]),
        (["{first}:0.8", "{second}:0.4"], ["{first}:0.8,up.1=0", "{second}:0.4,text=0"]),
        (["{first}:0.8"], ["{first}:0.8", "{first}:0.8,unet=0"]),
        (["{first}:0.8,unet=0"], []),
    ],
    ids=["scale", "block", "two", "twice", "none"],
)
def test_only_the_tensors_that_differ_are_written(
    before: list[str],
    after: list[str],
    small_model: SmallModel,
    second: SmallModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = (
        [text.format(first=small_model.lora, second=second.lora) for text in texts]
        for texts in (before, after)
    )
    fresh = [export(request(small_model, tmp_path / n, *t)) for n, t in (("a", old), ("b", new))]
    export(request(small_model, tmp_path / "out", *old))
    inodes = {
        n: (tmp_path / "out" / c.weights).stat().st_ino for n, c in fresh[0].components.items()
    }
    with watched(monkeypatch) as written:
        made = export(request(small_model, tmp_path / "out", *new))
    assert written == differing(*fresh) != {}
    assert same(made, fresh[1])
    for name, inode in inodes.items():
        assert (tmp_path / "out" / made.components[name].weights).stat().st_ino == inode


def test_other_sources_are_taken_and_another_profile_writes_no_weights(
    small_model: SmallModel, second: SmallModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, components = tmp_path / "out", ("unet", "vae_decoder")
    export(request(small_model, out, components=components))
    vae = {"parts": {"vae": second.checkpoint}, "components": components}
    with watched(monkeypatch) as written:
        made = export(request(small_model, out, **vae))
    fresh = export(request(small_model, tmp_path / "vae", **vae))
    assert written.keys() == {"vae_decoder"} and same(made, fresh)
    with watched(monkeypatch) as written:
        made = export(request(small_model, out, profile="diffusers", **vae))
    fresh = export(request(small_model, tmp_path / "profile", profile="diffusers", **vae))
    assert written == {} and same(made, fresh)
    with watched(monkeypatch) as written:
        made = export(request(second, out, components=("unet",)))
    fresh = export(request(second, tmp_path / "other", components=("unet",)))
    assert len(written["unet"]) == len(made.weights("unet").names()) and same(made, fresh)


def test_whoever_uses_the_file_keeps_its_bytes(small_model: SmallModel, tmp_path: Path) -> None:
    out, scales = tmp_path / "out", iter((0.5, 0.6, 0.7))
    component = export(request(small_model, out, f"{small_model.lora}:0.8")).components["unet"]
    file = out / component.weights

    def changed() -> Bundle:
        return export(request(small_model, out, f"{small_model.lora}:{next(scales)}"))

    # An artifact: a second name of the same file.
    before = file.read_bytes()
    artifact = tmp_path / "artifact.data"
    artifact.hardlink_to(file)
    changed()
    assert artifact.read_bytes() == before != file.read_bytes()
    # Another process that maps it, its handle long closed.
    code = (
        "import mmap, sys\n"
        "with open(sys.argv[1], 'rb') as file:\n"
        "    view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "print('mapped', flush=True)\n"
        "sys.stdin.readline()\n"
        "sys.stdout.buffer.write(view[:])\n"
    )
    before = file.read_bytes()
    command = [sys.executable, "-c", code, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None and reader.stdout.readline() == b"mapped\n"
        changed()
        assert reader.communicate(b"\n")[0] == before != file.read_bytes()
    # This process itself.
    before = file.read_bytes()
    with file.open("rb") as handle:
        view = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    made = changed()
    assert view[:] == before
    fresh = export(request(small_model, tmp_path / "fresh", f"{small_model.lora}:0.7"))
    assert same(made, fresh)


def test_a_file_that_was_changed_by_others_is_written_whole(
    small_model: SmallModel, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    component = export(request(small_model, out, f"{small_model.lora}:0.8")).components["unet"]
    with (out / component.weights).open("r+b") as file:
        file.write(b"not this")
    made = export(request(small_model, out, f"{small_model.lora}:0.5"))
    assert same(made, export(request(small_model, tmp_path / "b", f"{small_model.lora}:0.5")))


def test_a_tensor_may_be_written_in_any_number_of_blocks(
    small_model: SmallModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{small_model.lora}:0.8"
    whole = export(request(small_model, tmp_path / "whole", text))
    monkeypatch.setattr("converter.merged.BLOCK", 1000)
    assert same(export(request(small_model, tmp_path / "blocks", text)), whole)


class Killed(BaseException):
    """No clean-up survives it: from its point on, no file operation happens any more."""


@contextmanager
def killed(at: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Kill at this step (every write and every rename is one); yields the steps taken."""
    steps: list[str] = []
    real: dict[str, Any] = {n: getattr(os, n) for n in ("pwrite", "replace", "unlink")}

    def pwrite(handle: int, data: bytes, offset: int) -> int:
        if len(steps) == at:  # torn
            real["pwrite"](handle, data[: len(data) // 2], offset)
        return step("pwrite", handle, data, offset)  # type: ignore[no-any-return]

    def step(name: str, *arguments: object) -> Any:
        if len(steps) >= at:
            raise Killed
        if name != "unlink":
            steps.append(name)
        return real[name](*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        patch.setattr(os, "replace", lambda *a: step("replace", *a))
        patch.setattr(os, "unlink", lambda *a: step("unlink", *a))
        yield steps


def test_after_a_kill_at_any_point_the_next_export_is_right(
    small_model: SmallModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{small_model.lora}:{scale}" for scale in (0.8, 0.5, 0.3)]
    fresh = [export(request(small_model, tmp_path / t[-3:], t)) for t in texts]
    out = tmp_path / "out"
    export(request(small_model, out, texts[0]))
    with killed(sys.maxsize, monkeypatch) as steps:
        export(request(small_model, out, texts[1]))
    renames = [i for i, name in enumerate(steps) if name == "replace"]
    points = sorted({*renames, *(i + 1 for i in renames), len(steps) // 2} - {len(steps)})
    assert len(points) > 12  # twice: records, taking the file, giving it back, the graph
    for turn, point in enumerate(points):
        export(request(small_model, out, texts[0]))
        with killed(point, monkeypatch), pytest.raises(Killed):
            export(request(small_model, out, texts[1]))
        for name, component in fresh[1].components.items():
            found = out / component.weights
            whole = [(b.folder / b.components[name].weights).read_bytes() for b in fresh[:2]]
            assert not found.exists() or found.read_bytes() in whole
        if point > renames[0]:
            with pytest.raises(InputError, match="interrupted"):
                Bundle.load(out)
        following = turn % 3  # the first recipe, the killed one again, or another
        made = export(request(small_model, out, texts[following]))
        assert same(made, fresh[following])
