"""Rescue over a compiler of numpy: found, compiled with its table, judged again, reported."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from converter.progress import Progress
from converter.weights import Array, WeightSource
from targets.base import Artifact, CompileJob, Health, Interpreter, Runner, Skeleton, ToolchainError
from targets.compile import CompileRequest
from targets.manifest import Manifest
from tests.validate.fakes import (
    INTERFACES,
    NETWORKS,
    SIZE,
    FakeReference,
    FakeTarget,
    Place,
    make_artifact,
)
from validate.base import Level, Report, Verdict
from validate.validate import ValidateRequest, validate

OPERATIONS = tuple(f"op{index}" for index in range(12))
BROKEN = {"op4", "op5"}
"""What overflows: both have to be kept, or NaN comes out."""


@dataclass
class FakeInterpreter(Interpreter):
    """A decoder that gives NaN unless everything that is broken is kept."""

    component: str
    kept: Collection[str]
    broken: Collection[str]

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        output = NETWORKS[self.component](inputs)
        rescued = set(self.broken) <= set(self.kept)
        port = INTERFACES[self.component].outputs[0].name
        return {port: output if rescued else np.full_like(output, np.nan)}

    def layers(self, inputs: Mapping[str, Array], wanted: Collection[str]) -> dict[str, Array]:
        return {}

    def health(self, inputs: Mapping[str, Array]) -> list[Health]:
        ill = sorted(set(self.broken) - set(self.kept))
        return [
            Health(name, nan=int(bool(ill) and name > ill[0]), inf=int(name in ill[:1]), peak=9e4)
            for name in OPERATIONS
        ]


@dataclass
class FakeCompiler(FakeTarget):
    """Compiles what the interpreter runs; a table is a list of names."""

    broken: frozenset[str] = frozenset(BROKEN)
    tables: list[list[str]] = field(default_factory=list)
    assertion: str | None = None
    """The precision that can be interpreted but not compiled."""
    takes_tables = True
    keeps = MappingProxyType({"f16": ("bf16", "f32")})

    def write_table(self, kept: Mapping[str, str], path: Path) -> None:
        path.write_text("".join(f"{name} {precision}\n" for name, precision in kept.items()))

    def _kept(self, job: CompileJob) -> list[str]:
        if job.quantize_table is None:
            return []
        return [line.split()[0] for line in job.quantize_table.path.read_text().splitlines()]

    def interpret(
        self, job: CompileJob, weights: WeightSource, progress: Progress
    ) -> FakeInterpreter:
        self.tables.append(self._kept(job))
        broken = self.broken if job.component == "vae_decoder" else frozenset()
        return FakeInterpreter(job.component, self.tables[-1], broken)

    def compile(self, job: CompileJob, weights: WeightSource, progress: Progress) -> Skeleton:
        if self.assertion is not None and self.assertion in self._kept_in(job):
            raise ToolchainError("an assertion of the compiler")
        return Skeleton(job, "key", Path("skeleton"), None, 2.5, reused=False, why="")

    def _kept_in(self, job: CompileJob) -> str:
        return "" if job.quantize_table is None else job.quantize_table.path.read_text()

    def bind(
        self, skeletons: object, weights: object, folder: Path, progress: Progress
    ) -> list[Artifact]:
        assert isinstance(skeletons, list)
        job = skeletons[0].job
        made = make_artifact(folder, job.component, f"rescued by {self._kept(job)}")
        assert job.quantize_table is not None
        return [replace(made, predicted_ms=2.5, quantize_table=job.quantize_table.content)]

    def open(self, artifact: Artifact, folder: Path) -> Runner:
        said = (folder / artifact.path).read_text()
        kept = [name for name in OPERATIONS if f"'{name}'" in said]
        broken = self.broken if artifact.component == "vae_decoder" else frozenset()
        return FakeInterpreter(artifact.component, kept, broken)


@pytest.fixture
def compiler() -> FakeCompiler:
    return FakeCompiler()


@pytest.fixture(autouse=True)
def _weightless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small bundle has no graph to read weights by."""
    monkeypatch.setattr("converter.bundle.Bundle.weights", lambda _, name: name)
    for module in ("validate.rescue.rescue", "targets.compile"):
        monkeypatch.setattr(f"{module}.in_one_file", lambda _, weights, *__: weights)
    monkeypatch.setattr("targets.compile.Architecture.from_json", lambda _: None)
    monkeypatch.setattr("targets.compile.get_profile", lambda _: _Profile())


class _Profile:
    precisions: Mapping[str, str] = {}

    def check_sizes(self, *_: object) -> None:
        """Any will do."""

    def batch_of(self, component: str, batch: int) -> int:
        return batch

    def file(self, *_: object) -> None:
        """Anywhere."""


def go(place: Place, compiler: FakeCompiler) -> Report:
    manifest = Manifest.load(place.artifacts)
    made = CompileRequest(place.bundle, "fake", (SIZE,), place.artifacts)
    replace(manifest, commands={"fake": made.command()}).save()
    return validate(
        ValidateRequest(place.artifacts, rescue=True, levels=(Level.COMPONENT,)),
        open_target={"fake": compiler}.__getitem__,
        open_reference=FakeReference(),
        check_exports=lambda *_, **__: [],
    )


def test_what_fails_is_rescued_with_the_smallest_table(
    place: Place, compiler: FakeCompiler
) -> None:
    report = go(place, compiler)
    assert report.verdict is Verdict.PASS
    (repair,) = report.repairs
    assert (repair.component, [*repair.kept], repair.kept_in) == (
        "vae_decoder", ["op4", "op5"], "bf16",
    )  # fmt: skip
    assert repair.cause.startswith("Inf begins at op4 and is NaN from op5 on")
    assert repair.sentence.startswith("vae_decoder f16 on fake: Inf begins at op4")
    assert "no number to 300.0 dB" in repair.sentence
    assert repair.trials == 3  # both; each alone
    # The others are what they were, and whoever compiles again gets the same.
    manifest = Manifest.load(place.artifacts)
    assert sorted(a.component for a in manifest.artifacts) == sorted(INTERFACES)
    assert [a.component for a in manifest.artifacts if a.quantize_table] == ["vae_decoder"]
    table = place.artifacts / "rescue" / "vae_decoder.table"
    assert table.read_text() == "op4 bf16\nop5 bf16\n"
    assert [*manifest.commands["fake"][-2:]] == ["--quantize-table", f"vae_decoder={table}"]
    saved = json.loads((place.artifacts / "report.json").read_text())
    assert saved["repairs"][0]["kept"] == ["op4", "op5"]
    page = (place.artifacts / "report.html").read_text()
    assert "What was rescued" in page and "2 of 12 operations in bf16" in page


def test_one_overflow_behind_another_is_found_in_rounds(
    place: Place, compiler: FakeCompiler
) -> None:
    compiler.broken = frozenset({"op2", "op9"})
    (repair,) = go(place, compiler).repairs
    assert [*repair.kept] == ["op2", "op9"]


def test_where_one_precision_cannot_be_compiled_the_next_is_kept(
    place: Place, compiler: FakeCompiler
) -> None:
    compiler.assertion = "bf16"
    report = go(place, compiler)
    (repair,) = report.repairs
    assert (report.verdict, repair.kept_in) == (Verdict.PASS, "f32")


def test_where_none_can_be_compiled_that_is_said(place: Place, compiler: FakeCompiler) -> None:
    compiler.assertion, compiler.keeps = "bf16", MappingProxyType({"f16": ("bf16",)})
    (repair,) = go(place, compiler).repairs
    assert repair.table is None
    assert repair.outcome == "kept in bf16, op4, op5: an assertion of the compiler"


def test_what_no_table_helps_is_said(place: Place, compiler: FakeCompiler) -> None:
    compiler.broken = frozenset({"nowhere"})
    report = go(place, compiler)
    assert report.verdict is Verdict.FAIL
    (repair,) = report.repairs
    assert repair.table is None
    assert "not even with every operation kept" in repair.sentence


def test_a_target_that_cannot_says_so(place: Place, compiler: FakeCompiler) -> None:
    compiler.keeps = MappingProxyType({})
    (repair,) = go(place, compiler).repairs
    assert repair.outcome == "fake cannot keep single operations of f16 in another precision"


def test_what_passes_is_left_alone(place: Place, compiler: FakeCompiler) -> None:
    compiler.broken = frozenset()
    report = go(place, compiler)
    assert (report.verdict, [*report.repairs], compiler.tables) == (Verdict.PASS, [], [])
