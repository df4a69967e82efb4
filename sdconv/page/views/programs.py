"""What programs call with `gradio_client`; `sdconv/page/README.md` has an example."""

from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr
from gradio.events import api as endpoint

from sdconv.page.api import Api
from sdconv.page.desk import Desk
from sdconv.page.views.base import asks, refused

Answer = dict[str, Any]


def offer(api: Api) -> None:
    """Name the endpoints. Their docstrings are what Gradio shows of them."""

    def inspect(source: Any, variant: str = "") -> Answer:
        """Tell what a model is: an uploaded file, one below the root folder, an address."""
        return _answered(api.desk, lambda: api.inspect(str(plain_sources(source)), variant))

    def convert(order: dict[str, Any], request: gr.Request) -> Answer:
        """Queue a conversion; returns the id of its job."""
        return _answered(api.desk, lambda: api.convert(plain_sources(order), asks(request)))

    def status(job: str, request: gr.Request) -> Answer:
        """Tell where a job stands."""
        return _answered(api.desk, lambda: api.status(job, asks(request)))

    def result(job: str, request: gr.Request) -> Answer:
        """Tell what a job came to: verdict, files, commands."""
        return _answered(api.desk, lambda: api.result(job, asks(request)))

    def cancel(job: str, request: gr.Request) -> Answer:
        """Stop a job; nothing of it runs any more when this returns."""
        return _answered(api.desk, lambda: api.cancel(job, asks(request)))

    for function in (inspect, convert, status, result, cancel):
        endpoint(function, api_name=function.__name__, concurrency_limit=8)


def _answered(desk: Desk, answer: Callable[[], Answer]) -> Answer:
    try:
        return answer()
    except Exception as e:  # noqa: BLE001  (a program gets one sentence too)
        refused(e, desk)


def plain_sources(value: Any) -> Any:
    """With files that Gradio's client uploaded as the paths that they have here."""
    if isinstance(value, Mapping):
        if {"path", "meta"} <= value.keys():
            return str(value["path"])
        return {key: plain_sources(item) for key, item in value.items()}
    return [plain_sources(item) for item in value] if isinstance(value, list) else value
