"""What the miniature's pictures show, for `sdconv validate --recogniser`."""

from converter.weights import Array
from examples.mini.pictures import DAY, SHAPES, Scene
from examples.mini.recognise import recognise as look
from validate.base import Sight


def recognise(picture: Array, prompt: str) -> Sight:
    """Look at a picture, float32 [3, H, W] in [-1, 1], for the scene that the prompt names.

    The score is the overlap with the best shape's template where all is as asked, else 0.
    """
    seen = look(picture)
    right = seen.shows(asked(prompt))
    words = f"nothing on {seen.background}"
    if seen.shape != "nothing":
        words = Scene(seen.shape, seen.colour, seen.background).caption()
    return Sight(right, seen.overlap if right else 0.0, words)


def asked(prompt: str) -> Scene:
    """Read ``a large red circle on a blue background``; what is not said is the empty word."""
    words = prompt.lower().replace(",", " ").split()
    colours = [word for word in words if word in DAY]
    shape = next((word for word in words if word in SHAPES), "")
    front, ground = (*colours, "", "")[:2]
    return Scene(shape, front, ground)
