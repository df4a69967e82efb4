"""What all views share: words that the browser translates, kinds of events, cards, refusals."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import gradio as gr
from gradio.blocks import Block

from sdconv.page.desk import Desk
from sdconv.page.visitor import Visitor
from sdconv.page.web import visitor_of
from sdconv.page.words import Words, every_language

Filled = Mapping[Block, Any]
"""What the visitor filled in, by component."""

Shown = dict[Block, Any]
"""What is to be shown, by component; everything else stays as it is."""

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Of events that nobody has to wait for."""

LATEST: dict[str, Any] = {**QUIET, "trigger_mode": "always_last"}
"""Of events that answer how things stand: of several, the last counts."""

FETCHING: dict[str, Any] = {**QUIET, "concurrency_limit": 4}
"""Of events that may fetch an address."""

UPLOAD_LABEL: dict[str, Any] = {"show_label": False, "elem_classes": "sdc-drop"}
"""Gradio does not translate the label of a place for files."""

TRANSLATIONS = gr.I18n(**{language: dict(words) for language, words in every_language().items()})


def word(key: str) -> Any:
    """A sentence that the browser chooses by its language."""
    return TRANSLATIONS(key)


def choices(values: Sequence[str], prefix: str) -> list[tuple[Any, str]]:
    """Values with their words."""
    return [(word(f"{prefix}{value}"), value) for value in values]


def kept(count: int) -> list[gr.Textbox]:
    """Values that the browser keeps unseen, so that they survive a restart of the server."""
    return [gr.Textbox("", visible=False) for _ in range(count)]


def card(key: str, number: str = "") -> gr.Column:
    """A card with its title; to be filled in a `with` block."""
    column = gr.Column(elem_classes="sdc-card")
    with column:
        badge = f"<b>{number}</b>" if number else ""
        gr.HTML(f"<h2>{badge}<span>{word(key)}</span></h2>", elem_classes="sdc-title")
    return column


def asks(request: gr.Request) -> Visitor:
    """Who asks."""
    return visitor_of(request, request.username)


def words_for(request: gr.Request) -> Words:
    """The words in his language."""
    return Words(asks(request).language)


def refused(error: Exception, desk: Desk) -> NoReturn:
    """Tell an error as a message over the page."""
    raise gr.Error(desk.told(error), print_exception=False) from error
