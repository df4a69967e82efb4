"""Recognisers: files of the user's that say what a picture shows."""

from pathlib import Path

import numpy as np
import pytest

from converter.errors import InputError
from examples.mini.faults import RECOGNISER, SIZE
from examples.mini.pictures import Scene, draw
from validate.base import Sight, Verdict
from validate.recognition import load_recogniser, recognise_all

RIGHT, WRONG = Sight(right=True, score=0.9, words="a cat"), Sight(right=False, score=0, words="mud")
NOTHING = np.zeros((3, 8, 8), np.float32)


def rule(mine: str, reference: str) -> tuple[Verdict, str]:
    """What is said of pictures that are right (r) and wrong (w), in turn."""
    sights = iter([{"r": RIGHT, "w": WRONG}[letter] for letter in mine + reference])
    pictures = [NOTHING] * len(mine)
    prompts = ["a cat"] * len(mine)
    found = recognise_all(lambda *_: next(sights), prompts, pictures, pictures)
    return found.ruling.verdict, found.ruling.sentence


@pytest.mark.parametrize(
    ("mine", "reference", "verdict", "words"),
    [
        ("r", "r", Verdict.PASS, "recognised 1 of 1 (the reference: 1 of 1)"),
        ("rrrw", "rrrr", Verdict.PASS, "recognised 3 of 4"),
        ("rrww", "rrrr", Verdict.FAIL, "the artifacts draw mud"),
        ("w", "r", Verdict.FAIL, "the artifacts draw mud"),
        ("w", "w", Verdict.FAIL, "even the reference does not draw what is asked, it draws mud"),
        ("rwww", "rwww", Verdict.FAIL, "even the reference"),
        ("rrww", "rrww", Verdict.PASS, "recognised 2 of 4"),
    ],
)
def test_the_rule(mine: str, reference: str, verdict: Verdict, words: str) -> None:
    ruled, sentence = rule(mine, reference)
    assert ruled is verdict
    assert words in sentence


def test_the_miniatures_recogniser_reads_prompts_and_pictures() -> None:
    recognise = load_recogniser(RECOGNISER)
    scene = Scene("star", "white", "green")
    seen = recognise(draw(scene, SIZE), "a small white star on a green background")
    assert seen.right and seen.score > 0.9 and seen.words == scene.caption()
    other = recognise(draw(scene, SIZE), "a white ring on a green background")
    assert not other.right and other.score == 0
    assert not recognise(np.full((3, 64, 64), np.nan, np.float32), scene.caption()).right


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no Python file"),
        ("x = 1\n", "no function recognise"),
        ("import nothing_that_exists\n", "does not load"),
        ("def recognise(:\n", "does not load"),
    ],
)
def test_a_file_that_is_no_recogniser(text: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=words):
        load_recogniser(path)
