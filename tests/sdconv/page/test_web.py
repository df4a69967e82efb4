"""Downloads are their owner's, uploads fit, and nothing that is served runs as a page of ours."""

import shutil
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from sdconv.page import web
from sdconv.page.deliverables import described
from sdconv.page.desk import Desk
from sdconv.page.jobs import Job
from sdconv.page.limits import Limits
from sdconv.page.order import Order
from sdconv.page.retention import Retention
from sdconv.page.run_folder import ENDED, Outcome, State
from sdconv.page.visitor import COOKIE, Visitor, new_key
from sdconv.page.web import Downloads, Guard, file_address

EVIL = "<script>alert(1)</script>"


def home(request: Request) -> Response:
    del request
    return PlainTextResponse("page")


async def upload(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


@pytest.fixture
def client(desk: Desk) -> Iterator[TestClient]:
    with opened(desk) as client:
        yield client


def opened(desk: Desk, *, closed: bool = False) -> TestClient:
    app = Starlette(
        routes=[
            *Downloads(desk, closed).routes(),
            Route("/", home),
            Route("/gradio_api/upload", upload, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, desk=desk)],
    )
    vars(app).update(tokens={"t0ken": "ann"}, cookie_id="id")  # as Gradio's application has them
    return TestClient(app)


def keyed(client: TestClient) -> Visitor:
    """As a browser comes: it asks for the page and keeps the key."""
    client.get("/")
    return Visitor.of(None, client.cookies, None)


def judged(desk: Desk, visitor: Visitor) -> Job:
    job = desk.jobs.create(Order(), visitor)
    folder = job.folder / "artifacts"
    files = {"chip/unet.bin": b"0123456789", "report.html": EVIL.encode(), "a b/ü.json": b"{}"}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "validation.npz").write_bytes(b"saved arrays")
    made = described({name: folder / name for name in files})
    job.run.save_state(State(ENDED, time.time()))
    job.run.save_outcome(Outcome("judged", "fine", "pass", made))
    return job


def test_a_browser_gets_a_key_once(client: TestClient) -> None:
    answer = client.get("/")
    given = answer.headers["set-cookie"]
    assert given.startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(given.split("; "))
    assert "Secure" not in given
    assert "set-cookie" not in client.get("/").headers
    client.cookies.clear()
    assert "Secure" in client.get("/", headers={"x-forwarded-proto": "https"}).headers["set-cookie"]
    assert "set-cookie" not in client.get("/healthy").headers


def test_every_answer_is_taken_for_what_it_says(client: TestClient) -> None:
    headers = client.get("/healthy").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'self'" in headers["content-security-policy"]


def test_the_owner_gets_his_files_whole_or_in_part(client: TestClient, desk: Desk) -> None:
    job = judged(desk, keyed(client))
    address = file_address(job, "chip/unet.bin")
    whole = client.get(address)
    assert whole.content == b"0123456789"
    assert whole.headers["content-disposition"].startswith("attachment")
    part = client.get(address, headers={"Range": "bytes=4-"})
    assert (part.status_code, part.content) == (206, b"456789")
    assert client.get(file_address(job, "a b/ü.json")).content == b"{}"


def test_all_files_come_in_one_archive(client: TestClient, desk: Desk) -> None:
    job = judged(desk, keyed(client))
    answer = client.get(f"jobs/{job.id}/all.zip")
    with zipfile.ZipFile(BytesIO(answer.content)) as packed:
        assert packed.testzip() is None
        assert packed.namelist() == ["chip/unet.bin", "report.html", "a b/ü.json"]


def test_the_report_may_run_no_script_and_reach_nothing(client: TestClient, desk: Desk) -> None:
    job = judged(desk, keyed(client))
    answer = client.get(f"jobs/{job.id}/report")
    assert answer.text == EVIL
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "script-src" not in policy
    # Elsewhere it is a download, which no browser shows.
    direct = client.get(file_address(job, "report.html"))
    assert direct.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize("path", ["files/chip/unet.bin", "all.zip", "report", "pictures/1"])
def test_nobody_else_gets_anything(client: TestClient, desk: Desk, path: str) -> None:
    keyed(client)
    theirs = judged(desk, Visitor.of(None, {COOKIE: new_key()}, None))
    answers = [client.get(f"jobs/{theirs.id}/{path}")]
    missing = "20260101-000000-" + "0" * 32
    answers.append(client.get(f"jobs/{missing}/{path}"))
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].text.replace(theirs.id, "") == answers[1].text.replace(missing, "")
    client.cookies.clear()
    assert client.get(f"jobs/{theirs.id}/{path}").status_code == 404


@pytest.mark.parametrize(
    "name",
    ["../job.json", "..%2fjob.json", "%2e%2e/job.json", "validation.npz", "", "/etc/passwd",
     "..%2f..%2f..%2f..%2fetc%2fpasswd", "chip", "link"],
)  # fmt: skip
def test_only_what_was_made_to_be_taken_away_is_served(
    client: TestClient, desk: Desk, name: str
) -> None:
    job = judged(desk, keyed(client))
    (job.folder / "artifacts" / "link").symlink_to("/etc/passwd")
    assert client.get(f"jobs/{job.id}/files/{name}").status_code == 404


def test_a_file_that_became_a_link_is_not_served(client: TestClient, desk: Desk) -> None:
    job = judged(desk, keyed(client))
    path = job.folder / "artifacts" / "chip" / "unet.bin"
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert client.get(file_address(job, "chip/unet.bin")).status_code == 404


def test_an_unfinished_job_has_no_files(client: TestClient, desk: Desk) -> None:
    job = judged(desk, keyed(client))
    (job.folder / "outcome.json").unlink()
    assert client.get(file_address(job, "chip/unet.bin")).status_code == 404
    with zipfile.ZipFile(BytesIO(client.get(f"jobs/{job.id}/all.zip").content)) as packed:
        assert packed.namelist() == []


def test_pictures_are_served_to_their_owner(client: TestClient, desk: Desk) -> None:
    job = judged(desk, keyed(client))
    folder = job.folder / "drawings" / "1"
    folder.mkdir(parents=True)
    (folder / "drawing.json").write_text('{"prompt": "x", "target": "t", "size": "64x64"}')
    (folder / "picture.png").write_bytes(b"\x89PNG")
    assert client.get(f"jobs/{job.id}/pictures/1").content == b"\x89PNG"
    assert client.get(f"jobs/{job.id}/pictures/2").status_code == 404


def test_with_accounts_only_users_get_their_files(desk: Desk) -> None:
    job = judged(desk, Visitor("user ann"))
    with opened(desk, closed=True) as client:
        address = file_address(job, "chip/unet.bin")
        assert client.get(address).status_code == 404
        assert client.get("/healthy").status_code == 200
        client.cookies.set("access-token-id", "wrong")
        assert client.get(address).status_code == 404
        client.cookies.set("access-token-id", "t0ken")
        assert client.get(address).content == b"0123456789"
        other = judged(desk, Visitor("user ben"))
        assert client.get(file_address(other, "chip/unet.bin")).status_code == 404


class TestUploads:
    def send(self, client: TestClient) -> tuple[int, str]:
        answer = client.post("/gradio_api/upload", content=b"x" * 1000)
        return answer.status_code, answer.text

    def test_what_fits_is_taken(self, client: TestClient) -> None:
        assert self.send(client) == (200, "1000")

    def test_what_is_too_large_is_refused_before_it_comes(
        self, client: TestClient, desk: Desk
    ) -> None:
        desk.limits = replace(desk.limits, largest=999)
        code, text = self.send(client)
        assert code == 413
        assert "too large" in text

    def test_what_does_not_say_how_long_it_is_is_refused(self, client: TestClient) -> None:
        def endless() -> Iterator[bytes]:
            yield b"x"

        answer = client.post("/gradio_api/upload", content=endless())
        assert answer.status_code == 413
        assert "how long it is" in answer.text

    def test_a_full_page_takes_none(self, client: TestClient, desk: Desk) -> None:
        desk.retention = Retention(desk.jobs, Limits(quota=999))
        code, text = self.send(client)
        assert code == 413
        assert "the room of this page is used up" in text

    def test_a_full_disk_takes_none(
        self, client: TestClient, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = type("Usage", (), {"free": web.RESERVE + 999})
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        code, text = self.send(client)
        assert code == 413
        assert "this upload needs" in text
        assert str(desk.workspace.root) not in text
