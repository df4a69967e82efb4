"""Who draws what: a prompt at one size, drawn by artifacts, by the reference, or by both mixed.

Where a component is the reference and the others are artifacts, the difference shows what that
component costs. Whatever was drawn before by the same networks is found again, whoever asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.bundle import Bundle
from converter.cache import content_key
from converter.errors import InputError
from converter.sizes import Size
from runtime.sampling import PictureRequest
from runtime.staging import chosen_artifacts, drawing_components
from targets.base import Artifact
from targets.manifest import Manifest
from validate.base import Level
from validate.plan import FOLDER
from validate.store import CaseStore

VERSION = 2
"""Raise it when the sampling loop gives another latent or picture than before."""

DECODER = "vae_decoder"
"""What comes after the sampling loop."""

Cast = frozenset[str]
"""The components that are artifacts; all others are the reference."""

REFERENCE: Cast = frozenset()
"""Nobody is an artifact."""


@dataclass(frozen=True)
class Sitting:
    """One prompt at one size, for a target. `artifacts` has every component that draws."""

    target: str
    size: Size
    artifacts: Mapping[str, Artifact]
    request: PictureRequest
    made_from: Mapping[str, Any]
    """What the reference's latents depend on."""
    weights: Mapping[str, str]
    scaling_factor: float
    folder: Path

    @property
    def everyone(self) -> Cast:
        """All are artifacts."""
        return frozenset(self.artifacts)

    @property
    def label(self) -> str:
        """In a user's words: ``512x512 on bm1684x``."""
        return f"{self.size} on {self.target}"

    @property
    def case(self) -> str:
        """Names the files of this request; those of different ones lie side by side."""
        return f"seed{self.request.seed}-{content_key(self.request.identity())[:8]}"

    def playing(self, cast: Cast, level: Level) -> Cast:
        """Those of the cast that the level hears of: no decoder decodes inside a trajectory."""
        return cast - {DECODER} if level is Level.TRAJECTORY else cast

    def store(self, cast: Cast, level: Level) -> CaseStore:
        """Where that cast's latents or picture are."""
        playing = self.playing(cast, level)
        made_from = {**self.made_from, "artifacts": self._contents(playing - {DECODER})}
        if level is Level.PICTURE:
            made_from |= {
                "decoder": self.weights[DECODER],
                "scaling factor": self.scaling_factor,
                "decoder artifact": self._contents(playing & {DECODER}),
            }
        name = f"{level}-{self.size}"
        if playing and playing != self.playing(self.everyone, level):
            name += f"-with-{'-'.join(sorted(playing))}"
        folder = self.folder / (self.target if playing else "reference")
        return CaseStore(folder / name, content_key(made_from))

    def _contents(self, components: Cast) -> dict[str, str]:
        return {name: self.artifacts[name].computes for name in sorted(components)}


def sittings(manifest: Manifest, bundle: Bundle, request: PictureRequest) -> list[Sitting]:
    """Every target and size of the folder that has all the components that draw.

    Raises InputError when there is none.
    """
    pairs = dict.fromkeys((a.target, a.size) for a in manifest.artifacts if a.size is not None)
    needed = drawing_components(bundle, request.controlnets)
    found, lacking = [], None
    for target, size in pairs:
        try:
            artifacts = chosen_artifacts(manifest, target, size, needed)
        except InputError as e:
            lacking = e
        else:
            found.append(_sitting(manifest, bundle, request, target, size, artifacts))
    if not found:
        raise lacking or InputError(f"{manifest.folder}: nothing that could draw a picture")
    return found


def _sitting(
    manifest: Manifest,
    bundle: Bundle,
    request: PictureRequest,
    target: str,
    size: Size,
    artifacts: Mapping[str, Artifact],
) -> Sitting:
    weights = {name: bundle.components[name].weights_key for name in artifacts}
    made_from = {
        "request": request.identity(),
        "size": str(size),
        "prediction": [bundle.prediction_type, bundle.zero_terminal_snr],
        "weights": {name: key for name, key in weights.items() if name != DECODER},
        "words": dict(bundle.words),
        "version": VERSION,
    }
    return Sitting(
        target,
        size,
        artifacts,
        request,
        made_from,
        weights,
        scaling_factor=bundle.architecture["vae"]["scaling_factor"],
        folder=manifest.folder / FOLDER,
    )
