"""What the web server does besides the page itself: downloads for their owner, and its guard.

jobs/<id>/files/<name>      one file that a job made
jobs/<id>/all.zip           all of them, in the consumer's folder layout
jobs/<id>/report            the report, which may run no script and reach nothing
jobs/<id>/pictures/<n>      a picture of the try-it box
healthy                     for whoever watches the container
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from converter.errors import InputError
from converter.files import require_space
from sdconv.page.deliverables import REPORT, archive, files_of
from sdconv.page.desk import Desk
from sdconv.page.drawing import drawings
from sdconv.page.jobs import Job
from sdconv.page.visitor import COOKIE, COOKIE_SECONDS, Visitor, new_key

REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'"
)
"""Content-Security-Policy: the report has its pictures and its style inside."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'self'; object-src 'none'; base-uri 'self'",
}
"""Of every answer that has none of its own."""

RESERVE = 10**9
"""Bytes of disk that uploads leave free."""


def visitor_of(request: Any, user: str | None) -> Visitor:
    """Who sends a request, of Starlette's or Gradio's, in the name of an account or none."""
    return Visitor.of(user, request.cookies, request.headers.get("accept-language"))


@dataclass(frozen=True)
class Downloads:
    """The routes. With `closed` only users that are logged in get anything."""

    desk: Desk
    closed: bool

    def routes(self) -> list[Route]:
        """For the web application."""
        return [
            Route("/jobs/{job}/files/{name:path}", self.file),
            Route("/jobs/{job}/all.zip", self.archive),
            Route("/jobs/{job}/report", self.report),
            Route("/jobs/{job}/pictures/{number:int}", self.picture),
            Route("/healthy", self.healthy),
        ]

    def _job(self, request: Request) -> Job:
        """The job that is asked for; raises InputError unless it is the visitor's."""
        user = _user(request)
        if self.closed and user is None:
            raise InputError("log in first")
        return self.desk.job(request.path_params["job"], visitor_of(request, user))

    def file(self, request: Request) -> Response:
        """One file, in pieces if the browser asks for them (RFC 9110, Range)."""
        try:
            path = files_of(self._job(request)).get(request.path_params["name"])
        except InputError as e:
            return _refusal(e)
        if path is None:
            return PlainTextResponse("no such file", 404)
        return FileResponse(path, filename=path.name, headers={"Cache-Control": "no-store"})

    def archive(self, request: Request) -> Response:
        """Everything that a job made."""
        try:
            job = self._job(request)
        except InputError as e:
            return _refusal(e)
        headers = {"Content-Disposition": f'attachment; filename="sdconv-{job.id[:15]}.zip"'}
        return StreamingResponse(
            archive(files_of(job)), headers=headers, media_type="application/zip"
        )

    def report(self, request: Request) -> Response:
        """The report as a page for a frame."""
        try:
            path = files_of(self._job(request)).get(REPORT)
        except InputError as e:
            return _refusal(e)
        if path is None:
            return PlainTextResponse("no report", 404)
        headers = {"Content-Security-Policy": REPORT_POLICY, "Cache-Control": "no-store"}
        return FileResponse(path, media_type="text/html", headers=headers)

    def picture(self, request: Request) -> Response:
        """A picture that was drawn."""
        try:
            job = self._job(request)
        except InputError as e:
            return _refusal(e)
        number = str(request.path_params["number"])
        for drawing in drawings(job):
            if drawing.run.path.name == number and drawing.picture.is_file():
                return FileResponse(drawing.picture, media_type="image/png")
        return PlainTextResponse("no such picture", 404)

    async def healthy(self, request: Request) -> Response:
        """Whether the server answers."""
        del request
        return PlainTextResponse("ok")


def file_address(job: Job, name: str) -> str:
    """Where a file is, relative to the page, which may sit behind a proxy."""
    return f"jobs/{job.id}/files/{quote(name)}"


def _user(request: Request) -> str | None:
    """The account that is logged in, as Gradio's application knows it."""
    tokens: Mapping[str | None, str] = request.app.tokens
    kept = (f"access-token{kind}-{request.app.cookie_id}" for kind in ("", "-unsecure"))
    return next((tokens[k] for k in map(request.cookies.get, kept) if k in tokens), None)


def _refusal(error: InputError) -> Response:
    return PlainTextResponse(str(error), 404)


class Guard:
    """Around the application: gives browsers their key, refuses uploads that do not fit."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self._app = app
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if request.method == "POST" and scope["path"].rstrip("/").endswith("/upload"):
            refusal = await run_in_threadpool(self._upload_refusal, request.headers)
            if refusal is not None:
                await PlainTextResponse(refusal, 413)(scope, receive, send)
                return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if request.method == "GET" and scope["path"] in ("", "/"):
                    self._give_key(request, headers)
            await send(message)

        await self._app(scope, receive, answer)

    def _give_key(self, request: Request, headers: MutableHeaders) -> None:
        if COOKIE in request.cookies:
            return
        key = Response()
        secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
        key.set_cookie(
            COOKIE, new_key(), COOKIE_SECONDS, httponly=True, samesite="lax", secure=secure
        )
        headers.append("set-cookie", key.headers["set-cookie"])

    def _upload_refusal(self, headers: Mapping[str, str]) -> str | None:
        """Why an upload is not taken, judged by the size that it announces."""
        announced = headers.get("content-length", "")
        if not announced.isdecimal():
            return "an upload has to say how long it is"
        size = int(announced)
        if size > self._desk.limits.largest:
            return f"too large: {self._desk.limits.largest / 1e9:g} GB may be uploaded at once"
        try:
            self._desk.retention.require_room(size)
            require_space(self._desk.workspace.uploads, size + RESERVE, "this upload")
        except InputError as e:
            return self._desk.told(e)
        return None
