"""How a bundle wants to be sampled, where the user does not say."""

from collections.abc import Mapping
from typing import Any

from runtime.sampling import PictureRequest


def sampling_options(
    advice: Mapping[str, Any] | None,
    scheduler: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
) -> tuple[dict[str, Any], bool]:
    """Scheduler, steps and guidance: as given, else as advised, else the defaults of a picture.

    `advice` is `Bundle.sampling`. It holds together, so another scheduler than its own sets it
    aside. Also returns whether it is followed in what was not given.
    """
    given = {"scheduler": scheduler, "steps": steps, "guidance": guidance}
    asked = {name: value for name, value in given.items() if value is not None}
    followed = (
        advice is not None and len(asked) < len(given) and scheduler in (None, advice["scheduler"])
    )
    base = advice if advice is not None and followed else PictureRequest("").sampling
    return {**{name: base[name] for name in given}, **asked}, followed
