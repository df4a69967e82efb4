"""`manifest.json`: what lies in an artifacts' folder, and what it was made from (schema 1)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from converter.bundle import BUNDLE_FILE, Bundle
from converter.errors import InputError
from converter.files import read_json, write_json
from converter.interface import Interface
from converter.sizes import Size
from targets.base import Artifact, Estimate, Placement

MANIFEST_FILE = "manifest.json"


def artifact_to_json(artifact: Artifact) -> dict[str, Any]:
    """As plain JSON values; the size as ``WIDTHxHEIGHT`` or null."""
    size = None if artifact.size is None else str(artifact.size)
    return {**asdict(artifact), "size": size, "files": list(artifact.files)}


def artifact_from_json(data: Mapping[str, Any]) -> Artifact:
    """Read what `artifact_to_json` wrote; earlier versions wrote no estimate."""
    size = None if data["size"] is None else Size.parse(data["size"])
    estimate = data.get("estimate")
    read = None if estimate is None else Estimate.from_json(estimate)
    placed = data.get("placement")
    return Artifact(
        **{
            **data,
            "size": size,
            "files": tuple(data["files"]),
            "estimate": read,
            "placement": None if placed is None else Placement.from_json(placed),
        }
    )


@dataclass(frozen=True)
class Manifest:
    """The artifacts of one bundle, for one or more targets, in one folder."""

    folder: Path
    bundle: Path
    interfaces: Mapping[str, Interface]
    artifacts: Sequence[Artifact]
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Per target, the command that compiled for it."""
    versions: Mapping[str, str] = field(default_factory=dict)

    def save(self) -> None:
        """Write `manifest.json`, atomically."""
        record = {
            "schema": 1,
            "bundle": str(self.bundle),
            "interfaces": {name: i.to_json() for name, i in self.interfaces.items()},
            "artifacts": [artifact_to_json(a) for a in self.artifacts],
            "commands": self.commands,
            "versions": self.versions,
        }
        write_json(self.folder / MANIFEST_FILE, record)

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read a manifest and check that its files exist; raises InputError otherwise."""
        data = read_json(folder / MANIFEST_FILE, "a manifest made by 'sdconv compile'")
        if data.get("schema") != 1:
            raise InputError(
                f"{folder / MANIFEST_FILE}: schema {data.get('schema')!r} is not known here: "
                "compile again with this version"
            )
        try:
            manifest = cls(
                folder=folder,
                bundle=Path(data["bundle"]),
                interfaces={n: Interface.from_json(i) for n, i in data["interfaces"].items()},
                artifacts=[artifact_from_json(a) for a in data["artifacts"]],
                commands=data["commands"],
                versions=data["versions"],
            )
        except (AttributeError, KeyError, TypeError) as e:
            raise InputError(
                f"{folder / MANIFEST_FILE}: damaged, or of another version ({e}): delete it and "
                "compile again"
            ) from e
        for artifact in manifest.artifacts:
            for name in (artifact.path, *artifact.files):
                if not (folder / name).is_file():
                    raise InputError(f"{folder / name}: missing: run the same compile again")
        return manifest

    def of_target(self, target: str) -> "Manifest":
        """The same folder with the artifacts of one target; raises InputError without any."""
        mine = [a for a in self.artifacts if a.target == target]
        if not mine:
            names = ", ".join(dict.fromkeys(a.target for a in self.artifacts)) or "nothing"
            raise InputError(
                f"{self.folder}: nothing for target {target!r}: compile for it, or choose one of "
                f"{names}"
            )
        return replace(self, artifacts=mine)

    def load_bundle(self, moved_to: Path | None = None) -> Bundle:
        """Load the bundle these were compiled from; raises InputError if it is not there."""
        folder = moved_to or self.folder / self.bundle
        if not (folder / BUNDLE_FILE).is_file():
            raise InputError(
                f"{folder}: no {BUNDLE_FILE} there; the artifacts in {self.folder} were compiled "
                "from that bundle: say where it is now with --bundle"
            )
        return Bundle.load(folder)
