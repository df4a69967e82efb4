"""Our `tokenizer.mtok` read back by MNN's own tokenizer: the ids are those of CLIP."""

import json
import random
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from converter.clip_vocabulary import END_OF_WORD, clip_vocabulary
from runtime.tokenizer import NO_WORDS, token_ids
from targets.mnn.mtok import write_mtok
from targets.mnn.toolchain import Mnn

INSIDE = Path(__file__).with_name("inside") / "encode_prompts.py"

PROMPTS = [
    "a red circle on a blue background",
    "it's a dog, isn't it? we'll see!!! they're 'twas I'd",
    "12 monkeys, 2001: a space odyssey ½ ² Ⅷ",
    "ÉCOLE café naïve Straße İstanbul ǅ",
    "日本の桜 富士山 привет мир שלום مرحبا",
    "emoji 😀🎉 c++ c# a.b,c;d--e ~#A_~A#",
    "(masterpiece:1.2), best quality, 8k uhd, <lora:foo:0.8>",
    "  spaces   and\ttabs\n",
    "ﬁ ligature ʰ ¦ Ⱥ",
    "x" * 90,
    "before <|endoftext|> behind",
    "",
]


def encoded(
    mnn: Mnn, folder: Path, prompts: Sequence[str], words: Mapping[str, Sequence[int]] = NO_WORDS
) -> list[list[int]]:
    write_mtok(folder / "tokenizer.mtok", words)
    (folder / "prompts.json").write_text(json.dumps(prompts))
    done = subprocess.run(
        [mnn.python, INSIDE, folder], env=mnn.env(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-500:]
    ids: list[list[int]] = json.loads((folder / "ids.json").read_text())
    return ids


def test_prompts_are_what_clip_makes_of_them(mnn: Mnn, tmp_path: Path) -> None:
    tokens, _ = clip_vocabulary()
    words = [token.replace(END_OF_WORD, " ") for token in tokens[:-2]]
    pick = random.Random(0)  # noqa: S311  (no secret)
    mixed = ["".join(pick.choices(words, k=pick.randint(1, 12))) for _ in range(400)]
    prompts = [*PROMPTS, *mixed]
    found = encoded(mnn, tmp_path, prompts)
    wanted = [token_ids(prompt) for prompt in prompts]
    differing = [(p, f, w) for p, f, w in zip(prompts, found, wanted, strict=True) if f != w]
    assert differing == []
    assert len({number for ids in found for number in ids}) > 2000


def test_names_of_embeddings_stand_for_their_tokens(mnn: Mnn, tmp_path: Path) -> None:
    words = {"shapes": [49408], "Bad Hands": [49409, 49410, 49411], "shapes two": [49412]}
    prompts = ["a shapes circle", "SHAPES, bad hands!", "shapes two, Shapes", "red"]
    assert encoded(mnn, tmp_path, prompts, words) == [token_ids(p, words) for p in prompts]


def test_the_file_is_made_once(mnn: Mnn, tmp_path: Path) -> None:
    del mnn
    one, two = tmp_path / "one", tmp_path / "two"
    write_mtok(one, {})
    write_mtok(two, {})
    assert one.samefile(two)
