"""What is to be compared with what, and where its arrays are saved. Nothing is run here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from converter.bundle import Bundle
from converter.cache import content_key
from converter.errors import InputError
from converter.files import blake3_of
from converter.interface import Interface
from converter.sizes import Size
from targets.base import Artifact
from targets.manifest import Manifest
from validate.base import Link
from validate.scenes import RECIPE_VERSION, Scene, scenes
from validate.store import CaseStore

FOLDER = "validation"
"""Saved arrays lie here, inside the artifacts' folder."""

REFERENCE_VERSION = 1
"""Raise it when the reference computes something else than before."""


@dataclass(frozen=True)
class Subject:
    """One artifact and where its outputs are saved, and those of its lowered network."""

    artifact: Artifact
    outputs: CaseStore
    lowered: CaseStore

    def store(self, link: Link) -> CaseStore:
        """Where the outputs of the artifact, or of its lowered network, are."""
        return self.outputs if link is Link.ARTIFACT else self.lowered

    @property
    def label(self) -> str:
        """In a user's words: ``unet 512x512 f16``."""
        return self.artifact.label


@dataclass(frozen=True)
class Group:
    """Artifacts that share inputs and reference: one component at one size and batch."""

    component: str
    size: Size | None
    batch: int
    interface: Interface
    scenes: tuple[Scene, ...]
    inputs: CaseStore
    reference: CaseStore
    subjects: tuple[Subject, ...]


def load_artifacts(folder: Path) -> Manifest:
    """The manifest of a folder, with the weights beside each artifact in its content.

    Whatever is saved of an artifact so expires when they change. Raises InputError.
    """
    manifest = Manifest.load(folder)
    beside = {name for a in manifest.artifacts if a.content is None for name in a.files}
    files = {name: blake3_of(folder / name) for name in sorted(beside)}
    return replace(manifest, artifacts=[_with_content(a, files) for a in manifest.artifacts])


def _with_content(artifact: Artifact, files: Mapping[str, str]) -> Artifact:
    if artifact.content is not None:
        return artifact
    parts = {name: files[name] for name in artifact.files}
    return replace(artifact, content=content_key({"artifact": artifact.blake3, **parts}))


def plan(manifest: Manifest, bundle: Bundle, references: Path | None = None) -> list[Group]:
    """Group the artifacts of a folder; raises InputError when the bundle is not theirs.

    `references` is where inputs and the reference's outputs go that folders share.
    """
    shared = references or manifest.folder / FOLDER / "reference"
    order: dict[tuple[str, Size | None, int], list[Artifact]] = {}
    for artifact in manifest.artifacts:
        _check_unchanged(artifact, manifest.folder)
        order.setdefault((artifact.component, artifact.size, artifact.batch), []).append(artifact)
    for component in {artifact.component for artifact in manifest.artifacts}:
        _check_belongs(component, manifest, bundle)
    for artifact in manifest.artifacts:
        _check_weights(artifact, manifest, bundle)
    return [_group(manifest, bundle, artifacts, shared) for artifacts in order.values()]


def _check_unchanged(artifact: Artifact, folder: Path) -> None:
    if blake3_of(folder / artifact.path) != artifact.blake3:
        raise InputError(
            f"{folder / artifact.path}: changed since it was compiled (its BLAKE3 is not the one "
            "in manifest.json): run the same compile again"
        )


def _check_weights(artifact: Artifact, manifest: Manifest, bundle: Bundle) -> None:
    if artifact.weights_key != bundle.components[artifact.component].weights_key:
        raise InputError(
            f"{manifest.folder / artifact.path}: compiled from other weights than "
            f"{bundle.folder} holds now: run the same compile again"
        )


def _check_belongs(component: str, manifest: Manifest, bundle: Bundle) -> None:
    found = bundle.components.get(component)
    if found is None or found.interface != manifest.interfaces[component]:
        what = "has no such component" if found is None else "gives it other inputs or outputs"
        raise InputError(
            f"{manifest.folder}: its {component} was not compiled from {bundle.folder}, which "
            f"{what}: name the bundle it was compiled from with --bundle"
        )


def _group(
    manifest: Manifest, bundle: Bundle, artifacts: Sequence[Artifact], references: Path
) -> Group:
    first = artifacts[0]
    component, interface = first.component, manifest.interfaces[first.component]
    made_from = {
        "component": component,
        "size": str(first.size),
        "batch": first.batch,
        "interface": interface.to_json(),
        "recipe": RECIPE_VERSION,
        "reference": REFERENCE_VERSION,
        # Text embeddings and latents are computed by these.
        **{
            name: bundle.components[name].weights_key
            for name in ("text_encoder", "text_encoder_2", "vae_encoder")
            if name in bundle.components
        },
    }
    inputs_key = content_key(made_from)
    weights = bundle.components[component].weights_key
    reference_key = content_key({"inputs": inputs_key, "weights": weights})
    name = _name(component, first.size, first.batch)
    shared = references / name
    return Group(
        component,
        first.size,
        first.batch,
        interface,
        scenes(component, interface),
        inputs=CaseStore(shared / "inputs", inputs_key),
        reference=CaseStore(shared / "outputs", reference_key),
        subjects=tuple(_subject(manifest.folder, name, a, inputs_key) for a in artifacts),
    )


def _subject(folder: Path, name: str, artifact: Artifact, inputs_key: str) -> Subject:
    made_from = {"artifact": artifact.key, "content": artifact.computes, "inputs": inputs_key}
    key = content_key(made_from)
    where = folder / FOLDER / artifact.target / f"{name}-{artifact.precision}"
    lowered = where.with_name(f"{where.name}-lowered")
    return Subject(artifact, CaseStore(where, key), CaseStore(lowered, key))


def _name(component: str, size: Size | None, batch: int) -> str:
    parts = (component, None if size is None else str(size), f"b{batch}" if batch > 1 else None)
    return "-".join(part for part in parts if part)
