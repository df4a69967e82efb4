"""The page is whole in itself, escapes what it shows, and shows what matters."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.validate.fakes import FakeReference, FakeTarget, Place, judge
from validate.validate import ValidateRequest


@pytest.fixture
def page(place: Place, target: FakeTarget, reference: FakeReference) -> str:
    target.corrupt = lambda x: (x * 1.001).astype(np.float32)
    targets = {"fake": target}
    request = ValidateRequest(place.artifacts)
    judge(request, targets, reference)
    return request.report_path.read_text()


def test_nothing_is_fetched(page: str) -> None:
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    for source in sources:
        page = page.replace(source, "")
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<script|<link|srcset", page)


def test_the_verdict_stands_at_the_top_in_words(page: str) -> None:
    body = page[page.index("<body>") :]
    assert body.index("4 of 4 artifacts agree") < 400


def test_everything_shown_is_escaped(page: str) -> None:
    assert "a &lt;b&gt; &amp; c" in page
    assert "a <b> & c" not in page


def test_artifacts_pictures_thresholds_and_commands_are_there(page: str, place: Place) -> None:
    for component in ("text_encoder", "unet", "vae_encoder", "vae_decoder"):
        assert f"{component} " in page
    assert page.count("<img") == 4 * 3
    assert page.count("<svg") == 1 + 4 * 2
    assert "more than rounding explains" in page
    assert f"sdconv validate {place.artifacts}" in page
    assert "beef" in page


def test_a_page_without_a_single_run(
    place: Place, target: FakeTarget, reference: FakeReference, tmp_path: Path
) -> None:
    target.seconds = 1e6
    targets = {"fake": target}
    request = ValidateRequest(place.artifacts, report=tmp_path / "x.html")
    judge(request, targets, reference)
    page = (tmp_path / "x.html").read_text()
    assert "not run on the emulator: about" in page
    assert "so this is not a pass" in page
    assert "<img" not in page
