import numpy as np
import pytest

from runtime.tokenizer import overflow, tokenize
from validate.prompts import PROMPTS, Prompt


def test_a_prompt_whose_ids_are_known() -> None:
    # The ids that OpenAI's own tokenizer gives.
    expected = [49406, 320, 1125, 539, 320, 2368, 49407, 49407]
    assert tokenize(["a photo of a cat"])[0, :8].tolist() == expected


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda p: p.text[:12] or "empty")
def test_the_ids_that_validation_uses(prompt: Prompt) -> None:
    assert np.array_equal(tokenize([prompt.text])[0], prompt.tokens())


def test_a_row_is_77_tokens_whatever_the_prompt() -> None:
    rows = tokenize(["", "red " * 200, "Ein Café für 3 Bären 🐻"])
    assert rows.shape == (3, 77) and rows.dtype == np.int64
    assert (rows[:, 0] == 49406).all() and (rows[:, -1] == 49407).all()
    assert rows.max() == 49407


def test_case_and_spaces_do_not_matter() -> None:
    rows = tokenize(["a  RED\ncircle", "a red circle"])
    assert np.array_equal(rows[0], rows[1])


def test_what_does_not_fit_is_named() -> None:
    assert overflow("red " * 75) == ""
    assert overflow("red " * 75 + "green blue") == "green blue"
