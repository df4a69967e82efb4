import gc
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

import converter.export
import targets.compile
from converter.errors import InputError
from converter.progress import Event
from gradio_app import Page, serve
from sdconv.main import run
from sdconv.page import job as page_job
from sdconv.page import panels
from sdconv.page.conversion import Moment, convert
from sdconv.page.job import Form, deliverables, plan_job
from sdconv.page.live import Worker
from sdconv.page.workspace import Workspace, clean_name
from tests.conftest import SmallModel

# Every gr.Blocks leaves event loops open (gradio.utils.safe_get_lock), and they are collected when
# Python likes to: here, by the fixture below.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def leftovers_of_gradio() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def workspace(tmp_path: Path, small_model: SmallModel) -> Workspace:
    workspace = Workspace.at(tmp_path / "root")
    shutil.copyfile(small_model.checkpoint, workspace.root / "small.safetensors")
    shutil.copyfile(small_model.lora, workspace.root / "style.safetensors")
    return workspace


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


def form(**changes: Any) -> Form:
    given = {
        "checkpoint": "small.safetensors",
        "target": "onnxruntime",
        "profile": "sd-lcm-tpu",
        "sizes": "64x64",
    }
    return Form(**{**given, **changes})


def last(moments: Iterator[Moment]) -> Moment:
    return list(moments)[-1]


class TestWorkspace:
    @pytest.mark.parametrize(
        "name",
        ["../outside.safetensors", "/etc/passwd", "link.safetensors", "away/outside.safetensors",
         "loop", "", ".", "a\0b", "x" * 5000],
    )  # fmt: skip
    def test_nothing_outside_the_root_can_be_named(self, workspace: Workspace, name: str) -> None:
        outside = workspace.root.parent / "outside.safetensors"
        outside.write_bytes(b"secret")
        (workspace.root / "link.safetensors").symlink_to(outside)
        (workspace.root / "away").symlink_to(outside.parent)
        (workspace.root / "loop").symlink_to("loop")
        with pytest.raises(InputError, match="no such file below"):
            workspace.find(name)
        assert workspace.offered() == ["small.safetensors", "style.safetensors"]

    def test_files_below_it_are_found_however_they_are_written(self, workspace: Workspace) -> None:
        path = workspace.root / "small.safetensors"
        assert workspace.find("small.safetensors") == path
        assert workspace.find(str(path)) == path
        assert workspace.find("jobs/../small.safetensors") == path

    def test_every_job_has_a_folder_of_its_own(self, workspace: Workspace) -> None:
        folders = [workspace.new_job() for _ in range(50)]
        assert len(set(folders)) == 50
        assert {folder.parent for folder in folders} == {workspace.jobs}

    def test_only_jobs_can_be_discarded(self, workspace: Workspace) -> None:
        job = workspace.new_job()
        workspace.discard(job)
        assert not job.exists()
        with pytest.raises(ValueError, match="no job of"):
            workspace.discard(workspace.root)

    def test_uploads_of_one_name_are_both_kept(self, workspace: Workspace) -> None:
        job = workspace.new_job()
        kept = []
        for number in ("1", "2"):
            path = workspace.uploads / number / "a b.safetensors"
            path.parent.mkdir()
            path.write_text(number)
            kept.append(workspace.keep(path, job))
        assert [path.name for path in kept] == ["a_b.safetensors", "2-a_b.safetensors"]
        assert [path.read_text() for path in kept] == ["1", "2"]

    @pytest.mark.parametrize(
        ("name", "clean"),
        [
            ("model v1.5.safetensors", "model_v1.5.safetensors"),
            ("../../etc/passwd", "passwd.safetensors"),
            ("<script>.html", "script_.html.safetensors"),
            ("--output.safetensors", "output.safetensors"),
            ("....", "file.safetensors"),
        ],
    )
    def test_names_of_uploads_are_cleaned(self, name: str, clean: str) -> None:
        assert clean_name(name) == clean


class TestJob:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"checkpoint": None}, "no checkpoint is chosen"),
            ({"checkpoint": "../x"}, "no such file below"),
            ({"target": None}, "no target is chosen"),
            ({"target": "abacus"}, "unknown target"),
            ({"profile": "nobody"}, "unknown profile"),
            ({"sizes": "big"}, "is not WIDTHxHEIGHT"),
            ({"sizes": "500x64"}, "the nearest that works is 512x64"),
            ({"precision": "f16"}, "is not COMPONENT=PRECISION"),
            ({"loras": ("small.safetensors",), "scales": (1.0,)}, "where a LoRA was expected"),
            ({"loras": ("style.safetensors",), "scales": ()}, "1 LoRAs: this page takes 0"),
        ],
    )
    def test_mistakes_are_found_before_anything_is_written(
        self, workspace: Workspace, worker: Worker, changes: dict[str, Any], message: str
    ) -> None:
        end = last(convert(form(**changes), workspace, worker))
        assert end.status.kind == "error"
        assert message in end.status.sentence
        assert list(workspace.jobs.iterdir()) == []

    def test_the_commands_make_the_same_requests(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = form(
            loras=("style.safetensors",),
            scales=(0.7, 1.0),
            sizes="64x64,128x64",
            precision="unet=f32",
            batch=2,
            allow_unused=True,
        )
        job = plan_job(asked, workspace)
        made: list[object] = []

        def record(request: object, progress: object) -> None:
            made.append(request)
            raise InputError("recorded")

        monkeypatch.setattr(converter.export, "export", record)
        monkeypatch.setattr(targets.compile, "compile_bundle", record)
        for command in job.commands():
            assert run(command.split()[1:]) == 2
        assert made == [job.export, job.compile]

    def test_what_export_refuses_leaves_no_folder(
        self, workspace: Workspace, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise InputError("it does not fit")

        monkeypatch.setattr(page_job, "export", refuse)
        end = last(convert(form(), workspace, worker))
        assert (end.status.kind, end.status.sentence) == ("error", "it does not fit")
        assert list(workspace.jobs.iterdir()) == []

    def test_a_bug_is_told_and_its_traceback_kept(
        self, workspace: Workspace, worker: Worker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise KeyError("gone")

        monkeypatch.setattr(page_job, "export", fail)
        end = last(convert(form(), workspace, worker))
        assert end.job is not None
        assert "fault of sdconv" in end.status.sentence
        assert "KeyError" in (end.job.folder / "traceback.txt").read_text()


class TestLive:
    def test_stages_and_notes_show_while_the_work_goes_on(self, worker: Worker) -> None:
        seen = threading.Event()

        def work(progress: Any) -> int:
            progress("export", Event("export unet", 0.5, "a note"))
            assert seen.wait(10)
            progress("compile", Event("compile unet", 1.0))
            return 7

        running = worker.start(work)
        views = running.views()
        while not (view := next(views)).stage:
            pass
        assert (view.step, view.stage, view.done) == ("export", "export unet", 0.5)
        assert view.log == ("a note",)
        seen.set()
        assert list(views)[-1].log == ("a note", "compile unet: done")
        assert running.result() == 7

    def test_stopping_ends_the_work_like_ctrl_c(self, worker: Worker) -> None:
        cleaned = threading.Event()

        def work(progress: Any) -> None:
            try:
                while True:
                    progress("export", Event("export unet", 0.0))
                    time.sleep(0.01)
            finally:
                cleaned.set()

        running = worker.start(work)
        waiting = worker.start(work)
        assert next(waiting.views()).step == ""
        waiting.stop()
        running.stop()
        with pytest.raises(KeyboardInterrupt):
            running.result()
        assert cleaned.is_set()


def test_names_of_files_are_escaped() -> None:
    shown = panels.problem("<img src=x onerror=alert(1)>") + panels.report('"><script>')
    assert "<img" not in shown
    assert "<script" not in shown
    assert " sandbox " in panels.report("")


def filled(page: Page, **values: Any) -> dict[Any, Any]:
    """What gradio hands to `convert`: every input's initial value, but for these."""
    function = next(f for f in page.blocks.fns.values() if f.name == "convert")
    return {c: c.value for c in function.inputs} | {getattr(page, n): v for n, v in values.items()}


class TestPage:
    def test_ready_targets_can_be_chosen(self, workspace: Workspace) -> None:
        page = Page(workspace)
        shown = page.refresh()
        assert "onnxruntime" in [name for _, name in shown[page.target]["choices"]]
        assert shown[page.chosen]["choices"] == ["small.safetensors", "style.safetensors"]

    def test_loras_keep_their_scales_when_others_come(self, workspace: Workspace) -> None:
        page = Page(workspace)
        names = ["b.safetensors", "a.safetensors"]
        before = dict.fromkeys(page.scales, 1) | {page.scales[0]: 0.4}
        shown = page.show_scales(
            before | {page.scaled: names[1:], page.lora_uploads: None, page.loras_chosen: names}
        )
        assert [shown[s]["visible"] for s in page.scales[:3]] == [True, True, False]
        assert [shown[s]["value"] for s in page.scales[:2]] == [1, 0.4]
        assert shown[page.scaled] == names

    def test_a_mistake_is_one_readable_line(self, workspace: Workspace) -> None:
        page = Page(workspace)
        shown = list(page.convert(filled(page, sizes="big")))[-1]
        assert "no checkpoint is chosen" in shown[page.status]
        assert shown[page.run]["interactive"]
        assert "no such file" in page.inspect(None, "../elsewhere")

    def test_a_checkpoint_and_a_lora_become_judged_artifacts(
        self, workspace: Workspace, small_model: SmallModel
    ) -> None:
        page = Page(workspace)
        upload = workspace.uploads / "0" / "my model.safetensors"
        upload.parent.mkdir()
        shutil.copyfile(small_model.checkpoint, upload)
        values = filled(
            page,
            upload=str(upload),
            loras_chosen=["style.safetensors"],
            target="onnxruntime",
            sizes="64x64",
            batch=None,  # what an emptied field gives
            emulator_minutes=None,
            precision=None,
        )
        shown = list(page.convert(values))
        assert any("Converting" in s[page.status] for s in shown)
        end = shown[-1]
        assert "4 of 4 artifacts agree with the fp32 reference" in end[page.status]
        assert "srcdoc=" in end[page.report]
        assert "inputs/my_model.safetensors" in "".join(
            str(s.get(page.commands, "")) for s in shown
        )
        job, outcome = end[page.done]
        assert job.folder.parent == workspace.jobs
        assert outcome.report.verdict.value == "pass"
        for name in deliverables(job):
            assert name in end[page.files]
        assert "artifacts.zip" in page.pack_files((job, outcome))[page.files]
        page.close()

    def test_it_is_served_inspects_and_calls_nobody(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[object] = []
        look_up = socket.getaddrinfo

        def recorded(host: Any, *arguments: Any, **options: Any) -> Any:
            asked.append(host)
            return look_up(host, *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", recorded)
        for variable in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
            monkeypatch.setenv(variable, "")  # serve() sets them; this sets them back
        page = serve("127.0.0.1", port := free_port(), workspace.root, block=False)
        try:
            address = f"http://127.0.0.1:{port}"
            assert b"sdconv" in fetched(f"{address}/")
            assert "checkpoint of family sd15" in called(address, None, "small.safetensors")
            assert "no such file below" in called(address, None, "/etc/passwd")
            for path in (workspace.root / "small.safetensors", Path("/etc/passwd")):
                with pytest.raises(HTTPError, match="403"):
                    fetched(f"{address}/gradio_api/file={path}")
        finally:
            page.blocks.close(verbose=False)
            page.close()
        assert {str(host) for host in asked} <= {"127.0.0.1", "localhost"}

    def test_a_taken_port_is_a_readable_error(
        self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for variable in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
            monkeypatch.setenv(variable, "")
        with (
            socket.create_server(("127.0.0.1", 0)) as taken,
            pytest.raises(InputError, match="choose another --port"),
        ):
            serve("127.0.0.1", taken.getsockname()[1], workspace.root, block=False)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def fetched(address: str, data: bytes | None = None) -> bytes:
    request = Request(address, data, {"Content-Type": "application/json"})  # noqa: S310
    with urlopen(request, timeout=30) as answer:  # noqa: S310  (a server of this test)
        return bytes(answer.read())


def called(address: str, *values: object) -> str:
    """What the page's /inspect answers, as any program would ask it."""
    data = json.dumps({"data": values}).encode()
    event = json.loads(fetched(f"{address}/gradio_api/call/inspect", data))["event_id"]
    return fetched(f"{address}/gradio_api/call/inspect/{event}").decode()


def test_the_script_is_the_verb() -> None:
    script = Path(__file__).parents[1] / "gradio_app.py"
    done = subprocess.run(
        [sys.executable, str(script), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(option in done.stdout for option in ("--host", "--port", "--root"))
