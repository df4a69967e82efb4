"""The page as it is served: its endpoints through Gradio's own client, and its refusals."""

import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from converter.errors import InputError
from gradio_app import serve
from sdconv import ui
from sdconv.page.accounts import Accounts
from sdconv.page.jobs import Jobs
from sdconv.page.limits import GB, Limits
from sdconv.page.workspace import Workspace
from tests.conftest import SmallModel

# Every gr.Blocks leaves event loops open (gradio.utils.safe_get_lock), and its client sockets; they
# are collected when Python likes to: here, by the fixture below.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    # Gradio's statistics of what failed ask pandas 3 for what it gave up.
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
]

SCRIPT = Path(__file__).parents[1] / "gradio_app.py"
TEXT = {"components": ["text_encoder"], "targets": ["onnxruntime"], "sizes": "64x64"}
"""The shortest conversion."""


@pytest.fixture(autouse=True)
def leftovers_of_gradio() -> Iterator[None]:
    yield
    gc.collect()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def served(root: Path, **options: Any) -> Iterator[str]:
    """The address of a page, while it is served."""
    port = free_port()
    with pytest.MonkeyPatch.context() as environment:
        for variable in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
            environment.setenv(variable, "")  # serve() sets them; this sets them back
        page = serve("127.0.0.1", port, root, block=False, **options)
        try:
            yield f"http://127.0.0.1:{port}/"
        finally:
            page.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, small_model: SmallModel) -> Path:
    root = tmp_path_factory.mktemp("page") / "root"
    root.mkdir()
    shutil.copyfile(small_model.checkpoint, root / "small.safetensors")
    return root


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with served(root) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address, verbose=False)


def fetched(address: str, data: bytes | None = None) -> bytes:
    request = Request(address, data, {"Content-Type": "application/json"})  # noqa: S310
    with urlopen(request, timeout=30) as answer:  # noqa: S310  (a server of this test)
        return bytes(answer.read())


def called(address: str, endpoint: str, *values: object) -> str:
    """What an endpoint answers to a program that does as it likes."""
    data = json.dumps({"data": values}).encode()
    event = json.loads(fetched(f"{address}gradio_api/call/{endpoint}", data))["event_id"]
    return fetched(f"{address}gradio_api/call/{endpoint}/{event}").decode()


def test_programs_find_five_endpoints(client: Client) -> None:
    described = client.view_api(print_info=False, return_format="dict")
    endpoints = {"/inspect", "/convert", "/status", "/result", "/cancel"}
    assert set(described["named_endpoints"]) == endpoints
    assert not described["unnamed_endpoints"]


@pytest.mark.slow
def test_a_program_uploads_converts_and_downloads(
    client: Client, address: str, small_model: SmallModel
) -> None:
    """As the page's README shows it."""
    model = handle_file(str(small_model.checkpoint))
    found = client.predict(source=model, api_name="/inspect")
    assert (found["kind"], found["family"], found["name"]) == (
        "checkpoint", "sd15", small_model.checkpoint.name
    )  # fmt: skip
    order = {**TEXT, "checkpoint": model, "loras": [[handle_file(str(small_model.lora)), "0.5"]]}
    job = client.predict(order=order, api_name="/convert")["job"]
    seen = []
    while not (status := client.predict(job=job, api_name="/status"))["finished"]:
        seen.append(status["done"])
        time.sleep(0.3)
    assert status["state"] == "pass", status
    assert seen == sorted(seen)
    result = client.predict(job=job, api_name="/result")
    assert result["verdict"] == "pass"
    names = [file["name"] for file in result["files"]]
    assert {"manifest.json", "report.html", "report.json"} < set(names)
    for file in result["files"]:
        assert len(fetched(address + file["address"])) == file["bytes"]
    with zipfile.ZipFile(BytesIO(fetched(address + result["archive"]))) as packed:
        assert packed.namelist() == names
    assert result["commands"][0].startswith(f"sdconv export -u {small_model.checkpoint.name}")
    assert "/" not in result["commands"][0].split(" -u ")[1].split()[0]


def test_a_program_cancels(client: Client) -> None:
    order = {**TEXT, "components": [], "checkpoint": "small.safetensors"}  # it takes a minute
    job = client.predict(order=order, api_name="/convert")["job"]
    status = client.predict(job=job, api_name="/cancel")
    assert (status["state"], status["finished"]) == ("stopped", True)


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({**TEXT}, "no checkpoint is chosen"),
        ({**TEXT, "checkpoint": "../small.safetensors"}, "no such file"),
        ({**TEXT, "checkpoint": "/etc/passwd"}, "no such file"),
        ({**TEXT, "checkpoint": "http://example.com/x"}, "only https"),
        ({**TEXT, "checkpoint": "small.safetensors", "targets": ["abacus"]}, "unknown target"),
        ({"chekpoint": "x"}, "no field"),
    ],
)
def test_refusals_reach_programs_in_one_sentence(
    client: Client, root: Path, order: dict[str, Any], reason: str
) -> None:
    with pytest.raises(AppError, match=reason) as error:
        client.predict(order=order, api_name="/convert")
    assert str(root) not in str(error.value)


def test_an_unknown_job_is_no_job(client: Client) -> None:
    for endpoint in ("/status", "/result", "/cancel"):
        with pytest.raises(AppError, match="no job"):
            client.predict(job="20260101-000000-" + "0" * 32, api_name=endpoint)


@pytest.mark.parametrize("place", ["root", "job", "/etc/passwd", "cwd"])
def test_gradio_serves_no_file_but_uploads(address: str, root: Path, place: str) -> None:
    job = root / "jobs" / "file.txt"
    job.write_text("x")
    path = {"root": root / "small.safetensors", "job": job, "cwd": Path("gradio_app.py").absolute()}
    with pytest.raises(HTTPError, match="403"):
        fetched(f"{address}gradio_api/file={path.get(place, place)}")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "{root}/small.safetensors", "{root}/jobs/file.txt"]
)
def test_nothing_can_stand_for_an_upload(address: str, root: Path, path: str) -> None:
    """A program may claim that a file was uploaded; then it must lie among the uploads."""
    claimed = {"path": path.format(root=root), "meta": {"_type": "gradio.FileData"}}
    assert "event: error" in called(address, "inspect", claimed, "")


def test_gradio_fetches_nothing_in_the_place_of_an_upload(address: str) -> None:
    """Its own downloads know neither limits nor policy."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.5)
        place = f"http://127.0.0.1:{trap.getsockname()[1]}/x.safetensors"
        for url in (place, "https://example.com/x.safetensors"):
            claimed = {"path": url, "url": url, "meta": {"_type": "gradio.FileData"}}
            answer = called(address, "inspect", claimed, "")
            assert "event: error" in answer
            assert "give an address as a text" in answer
        with pytest.raises(TimeoutError):
            trap.accept()


def test_the_page_calls_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    look_up = socket.getaddrinfo

    def recorded(host: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(host)
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", recorded)
    with served(tmp_path / "root") as address:
        assert b"sdconv" in fetched(address)
        assert fetched(f"{address}healthy") == b"ok"
    assert {str(host) for host in asked} <= {"127.0.0.1", "localhost"}


def test_with_accounts_users_see_their_own(tmp_path: Path, small_model: SmallModel) -> None:
    root = tmp_path / "root"
    root.mkdir()
    shutil.copyfile(small_model.checkpoint, root / "small.safetensors")
    accounts = Accounts({"ann": "a-pass", "ben": "b-pass"})
    with served(root, accounts=accounts) as address:
        with pytest.raises(HTTPError, match="401"):
            called(address, "inspect", "small.safetensors", "")
        with pytest.raises(HTTPError, match="401"):
            fetched(f"{address}gradio_api/upload", b"x")
        ann = Client(address, auth=("ann", "a-pass"), verbose=False)
        ben = Client(address, auth=("ben", "b-pass"), verbose=False)
        order = {**TEXT, "checkpoint": "small.safetensors"}
        job = ann.predict(order=order, api_name="/convert")["job"]
        assert Jobs(Workspace(root)).get(job).owner == "user ann"  # type: ignore[union-attr]
        for endpoint in ("/status", "/result", "/cancel"):
            with pytest.raises(AppError, match="no job"):
                ben.predict(job=job, api_name=endpoint)
        assert ann.predict(job=job, api_name="/cancel")["finished"]
        with pytest.raises(ValueError, match=r"Could not login|Incorrect|failed"):
            Client(address, auth=("ann", "wrong"), verbose=False)


def test_the_options_have_the_limits_for_defaults() -> None:
    """They are written twice: the command line starts without the converter."""
    assert Limits() == Limits(
        running=ui.RUNNING,
        waiting=ui.WAITING,
        each=ui.EACH,
        quota=round(ui.QUOTA_GB * GB),
        largest=round(ui.LARGEST_GB * GB),
        keep_days=ui.KEEP_DAYS,
        fetch_minutes=ui.FETCH_MINUTES,
        draw_minutes=ui.DRAW_MINUTES,
    )


def test_a_taken_port_is_a_readable_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(sys.modules[__name__], "free_port", lambda: taken.getsockname()[1])
        with pytest.raises(InputError, match="choose another --port"), served(tmp_path / "root"):
            pass


def test_the_script_serves_until_its_container_is_stopped(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, str(SCRIPT), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--root", str(tmp_path / "root"), "--quota", "1", "--running", "2"]
    env = {**os.environ, "SDCONV_UI_ACCOUNTS": "ann:s3cret"}
    with subprocess.Popen(command, env=env) as server:
        for _ in range(300):
            try:
                fetched(f"http://127.0.0.1:{port}/healthy")
                break
            except OSError:
                time.sleep(0.2)
        with pytest.raises(HTTPError, match="401"):
            called(f"http://127.0.0.1:{port}/", "inspect", "x", "")
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
