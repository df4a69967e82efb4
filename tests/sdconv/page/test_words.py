"""Both languages say the same things, and everything that is said has words."""

import re
import string
from pathlib import Path

import pytest

from sdconv.page import panels
from sdconv.page.visitor import LANGUAGES
from sdconv.page.words import Words, every_language, sentences

PAGE = Path(panels.__file__).parent


def places(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


def test_both_languages_have_the_same_keys() -> None:
    assert set(every_language()) == set(LANGUAGES)
    assert sentences("en").keys() == sentences("zh").keys()


@pytest.mark.parametrize("key", sorted(sentences("en")))
def test_both_say_the_same_values(key: str) -> None:
    english, chinese = sentences("en")[key], sentences("zh")[key]
    assert places(english) == places(chinese)
    assert english.strip() == english != ""
    assert chinese.strip() == chinese != ""


def test_chinese_is_chinese() -> None:
    """What stays as it is, is a name or an example."""
    same = {k for k in sentences("en") if not re.search(r"[\u4e00-\u9fff]", sentences("zh")[k])}
    assert same == {
        "title", "model.link-example", "make.format-onnx", "make.format-torchscript", "kind.lora",
        "kind.controlnet", "kind.vae", "kind.unet", "read.clip-skip", "try.prompt-example",
        "stage.torchscript", "verb.torchscript",
    }  # fmt: skip


NAMED = re.compile(
    r"""\b(?:t|words|word|card|hint|consent|self)\(\s*(?:words, )?["']([a-z][\w.-]*)["']"""
)


def used() -> set[str]:
    """Every key that is named whole in the code or in a template."""
    sources = [*PAGE.rglob("*.py"), *PAGE.rglob("*.j2"), PAGE.parents[1] / "gradio_app.py"]
    return {key for path in sources for key in NAMED.findall(path.read_text())}


PREFIXES = ("kind.", "state.", "verb.", "stage.", "how.", "make.format-", "make.effort-",
            "make.start", "try.", "make.both", "make.export")  # fmt: skip
"""Of keys that are put together."""


def test_every_key_that_is_used_has_words() -> None:
    known = sentences("en").keys()
    assert {key for key in used() if key not in known and not key.endswith((".", "-"))} == set()


def test_no_words_are_left_over() -> None:
    left = sentences("en").keys() - used()
    assert {key for key in left if not key.startswith(PREFIXES)} == set()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.5, "0.5 s"), (42, "42 s"), (100, "2 min"), (5000, "83 min"), (7300, "2 h 2 min")],
)
def test_times_are_told_in_the_unit_that_reads_best(seconds: float, said: str) -> None:
    assert Words("en").duration(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(5, "刚刚"), (61, "1 分钟前"), (7200, "2 小时 0 分钟前"), (400_000, "4 天前")],
)
def test_times_ago(seconds: float, said: str) -> None:
    assert Words("zh").ago(seconds) == said


def test_a_stage_is_told_by_its_verb() -> None:
    assert Words("en").verb("compile unet 64x64 f16") == "Compiling unet 64x64 f16"
    assert Words("zh").verb("compile unet 64x64 f16") == "编译 unet 64x64 f16"
    assert Words("en").verb("something else") == "something else"
