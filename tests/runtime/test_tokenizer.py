import numpy as np
import pytest
from transformers import CLIPTokenizer

from converter.clip_vocabulary import clip_vocabulary
from runtime.tokenizer import overflow, token_ids, tokenize
from validate.prompts import PROMPTS


def test_a_prompt_whose_ids_are_known() -> None:
    # The ids that OpenAI's own tokenizer gives.
    expected = [49406, 320, 1125, 539, 320, 2368, 49407, 49407]
    assert tokenize(["a photo of a cat"])[0, :8].tolist() == expected


# fmt: off
LONGEST = (
    550, 2870, 3086, 539, 320, 2442, 10202, 1605, 536, 3424, 267, 4935, 10080, 9889, 531,
    320, 9057, 11348, 267, 3616, 1395, 525, 6682, 47894, 6885, 267, 42215, 4348, 518, 9120,
    8154, 267, 18949, 5873, 1798, 4287, 6244, 267, 8626, 8594, 26595, 267, 4021, 5389, 267,
    1400, 7657, 267, 11240, 12971, 267, 16647, 530, 518, 7011, 1573, 267, 320, 13717, 525,
    518, 10625, 267, 530, 518, 1844, 539, 320, 7991, 3498, 267, 2047, 2577, 267, 3773,
)
# fmt: on


def test_a_prompt_that_fills_every_position() -> None:
    # Also the ids of OpenAI's own tokenizer.
    assert tokenize([PROMPTS[1]])[0].tolist() == [49406, *LONGEST, 49407]
    assert overflow(PROMPTS[1]) == ""


def test_a_row_is_77_tokens_whatever_the_prompt() -> None:
    rows = tokenize(["", "red " * 200, "Ein Café für 3 Bären 🐻"])
    assert rows.shape == (3, 77) and rows.dtype == np.int64
    assert (rows[:, 0] == 49406).all() and (rows[:, -1] == 49407).all()
    assert rows.max() == 49407


def test_sd2_pads_with_zeros_behind_one_end() -> None:
    row = tokenize(["a photo of a cat"], padding=0)[0]
    assert row[:9].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 0, 0]
    assert tokenize([PROMPTS[1]], padding=0)[0].tolist() == [49406, *LONGEST, 49407]


def test_case_and_spaces_do_not_matter() -> None:
    rows = tokenize(["a  RED\ncircle", "a red circle"])
    assert np.array_equal(rows[0], rows[1])


def test_what_does_not_fit_is_named() -> None:
    assert overflow("red " * 75) == ""
    assert overflow("red " * 75 + "green blue") == "green blue"


WORDS = {"<toy>": [49408, 49409], "bad-hands": [49410], "Toy": [49411], "my style": [49412]}


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        ("a <toy> cat", [320, 49408, 49409, 2368]),
        ("a <TOY>, cat", [320, 49408, 49409, 267, 2368]),
        ("cat<toy>cat", [2368, 49408, 49409, 2368]),
        ("a toy cat", [320, 49411, 2368]),
        ("BAD-hands", [49410]),
        ("a My\n  Style cat", [320, 49412, 2368]),
        ("toy", [49411]),
        ("", []),
    ],
)
def test_names_of_embeddings_become_their_ids(prompt: str, ids: list[int]) -> None:
    row = tokenize([prompt], words=WORDS)[0]
    assert row[: len(ids) + 2].tolist() == [49406, *ids, 49407]
    assert (row[len(ids) + 2 :] == 49407).all()


def test_a_name_inside_a_longer_word_is_that_word() -> None:
    prompt = "toys, atoy, my styles"
    assert np.array_equal(tokenize([prompt], words=WORDS), tokenize([prompt]))


def test_the_words_around_a_name_are_tokenized_as_transformers_does() -> None:
    reference = tokenizer_with(["<toy>", "<toy>_1"])
    prompt = "a photo of my <toy>, it's 3 o'clock — Ein Café 🐻"
    wanted = reference(prompt.replace("<toy>", "<toy> <toy>_1"))["input_ids"]
    assert token_ids(prompt, WORDS) == wanted[1:-1]


def tokenizer_with(added: list[str]) -> CLIPTokenizer:
    """Return a tokenizer to which transformers added tokens, as diffusers does it."""
    tokens, merges = clip_vocabulary()
    vocabulary = {token: i for i, token in enumerate(tokens)}
    found = CLIPTokenizer(vocab=vocabulary, merges=merges)  # type: ignore[arg-type]
    found.add_tokens(added)
    return found


def test_what_does_not_fit_is_named_with_its_embeddings() -> None:
    assert overflow("red " * 74 + "<toy> blue", WORDS) == "<toy> blue"
    assert overflow("red " * 73 + "<toy>", WORDS) == ""
