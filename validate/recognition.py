"""A recogniser says in words what a picture shows, and whether that is what was asked for.

It is a Python file of the user's with one function, which is run on every picture:

    def recognise(picture, prompt) -> validate.base.Sight    # picture: float32 [3, H, W] in [-1, 1]

`examples/mini/recogniser.py` is the miniature's. Numbers compare an artifact with the reference; a
recogniser also notices what both have wrong, such as a latent that nobody scaled.
"""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

from converter.errors import InputError
from converter.weights import Array
from validate.base import Recognition, Ruling, Sight, Verdict
from validate.thresholds import RECOGNISED, UNRECOGNISED

Recogniser = Callable[[Array, str], Sight]

FUNCTION = "recognise"


def load_recogniser(path: Path) -> Recogniser:
    """Run a recogniser's file; raises InputError for one that is none."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"{path}: no Python file: name one with a function {FUNCTION}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as e:
        raise InputError(f"{path}: the recogniser does not load: {e}") from e
    found: Recogniser | None = getattr(module, FUNCTION, None)
    if not callable(found):
        raise InputError(
            f"{path}: no function {FUNCTION}: write 'def {FUNCTION}(picture, prompt)', as "
            "examples/mini/recogniser.py does"
        )
    return found


def recognise_all(
    recogniser: Recogniser,
    prompts: Sequence[str],
    mine: Sequence[Array],
    reference: Sequence[Array],
) -> Recognition:
    """Look at the artifacts' and the reference's picture of every prompt."""
    seen, wanted = (
        [recogniser(picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]
        for pictures in (mine, reference)
    )
    return Recognition(_rule(seen, wanted), prompts, seen, wanted)


def _rule(mine: Sequence[Sight], reference: Sequence[Sight]) -> Ruling:
    count = len(mine)
    right, expected = (sum(sight.right for sight in sights) for sights in (mine, reference))
    score = f"recognised {right} of {count} (the reference: {expected} of {count})"
    if expected < RECOGNISED * count:
        said = next(sight.words for sight in reference if not sight.right)
        return Ruling(
            Verdict.FAIL,
            f"{score}: even the reference does not draw what is asked, it draws {said}: the "
            "sampling loop, its scale or the checkpoint is wrong, whatever the artifacts do",
        )
    if expected - right > UNRECOGNISED * count:
        said = next(sight.words for sight in mine if not sight.right)
        return Ruling(Verdict.FAIL, f"{score}: the artifacts draw {said}")
    return Ruling(Verdict.PASS, score)
