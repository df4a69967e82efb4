"""A reference and a target that are plain numpy, and the small bundle and artifacts they read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from converter.bundle import Bundle, BundleComponent
from converter.cost import Cost
from converter.files import blake3_of
from converter.interface import Interface, Port
from converter.progress import Progress
from converter.sizes import Size
from converter.weights import Array, WeightSource
from runtime.staging import OpenReference
from targets.base import (
    Artifact,
    CompileJob,
    Conformance,
    Runner,
    Skeleton,
    Target,
    ToolchainError,
    Workload,
)
from targets.manifest import Manifest
from validate.base import Report
from validate.validate import ValidateRequest, validate

LATENT = ("batch", 4, "height/8", "width/8")
PICTURE = ("batch", 3, "height", "width")
RESIDUALS = (
    "mid_block_additional_residual",
    *(f"down_block_additional_residual_{i}" for i in (0, 1)),
)

INTERFACES = {
    "text_encoder": Interface(
        (Port("tokens", "int32", ("batch", 77)),),
        (Port("last_hidden_state", "float32", ("batch", 77, 8)),),
    ),
    "unet": Interface(
        (
            Port("sample", "float32", LATENT),
            Port("timestep", "float32", (1,)),
            Port("encoder_hidden_states", "float32", ("batch", 77, 8)),
            *(Port(name, "float32", LATENT) for name in RESIDUALS),
        ),
        (Port("noise_pred", "float32", LATENT),),
    ),
    "vae_encoder": Interface(
        (Port("image", "float32", PICTURE),),
        (Port("moments", "float32", ("batch", 8, "height/8", "width/8")),),
    ),
    "vae_decoder": Interface(
        (Port("latent", "float32", LATENT),), (Port("image", "float32", PICTURE),)
    ),
}

SIZE = Size(128, 64)

Corruption = Callable[[Array], Array]
Rewiring = Callable[[Mapping[str, Array]], Mapping[str, Array]]


def text_encoder(inputs: Mapping[str, Array]) -> Array:
    angle = inputs["tokens"][..., None] * np.arange(1, 9) * 0.001
    return np.asarray(np.sin(angle), np.float32)


def unet(inputs: Mapping[str, Array]) -> Array:
    out = 0.7 * inputs["sample"] + 0.1 * np.sin(inputs["timestep"])
    out = out + inputs["encoder_hidden_states"].mean()
    for weight, name in zip((0.3, 0.5, 0.7), RESIDUALS, strict=True):
        out = out + weight * inputs[name]
    return np.asarray(out, np.float32)


def vae_encoder(inputs: Mapping[str, Array]) -> Array:
    image = inputs["image"]
    batch, _, height, width = image.shape
    cells = image.reshape(batch, 3, height // 8, 8, width // 8, 8).mean(axis=(3, 5))
    return np.concatenate([cells * 4, -cells, cells - 20, cells[:, :2] - 19], axis=1)[:, :8]


def vae_decoder(inputs: Mapping[str, Array]) -> Array:
    return np.asarray(np.tanh(inputs["latent"][:, :3].repeat(8, axis=2).repeat(8, axis=3)))


NETWORKS = {f.__name__: f for f in (text_encoder, unet, vae_encoder, vae_decoder)}


@dataclass
class FakeReference:
    """Opens numpy networks and counts how often they ran."""

    runs: list[str] = field(default_factory=list)

    def __call__(self, bundle: Bundle, component: str) -> Runner:
        del bundle
        return FakeRunner(component, INTERFACES[component], self.runs, lambda x: x)


@dataclass
class FakeRunner(Runner):
    component: str
    interface: Interface
    runs: list[str]
    corrupt: Corruption
    rewire: Rewiring = lambda inputs: inputs

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        assert [*inputs] == [port.name for port in self.interface.inputs]
        self.runs.append(self.component)
        output = NETWORKS[self.component](
            self.rewire(inputs) if self.component == "unet" else inputs
        )
        return {self.interface.outputs[0].name: self.corrupt(output)}


@dataclass
class FakeTarget(Target):
    """The same networks with a corruption; optionally an emulator of a given slowness.

    With `spoilt` only that component is corrupted.
    """

    corrupt: Corruption = lambda x: x
    rewire: Rewiring = lambda inputs: inputs
    spoilt: str | None = None
    seconds: float | None = None
    slow_sizes: tuple[Size, ...] | None = None
    installed: bool = True
    breaks: bool = False
    lowered: Corruption | None = None
    lowering: ToolchainError | None = None
    runs: list[str] = field(default_factory=list)
    checked: list[Conformance] = field(default_factory=list)

    name = "fake"
    summary = "a target for tests"
    chip = "chip"
    precisions = ("f32", "f16")

    def default_precision(self, component: str) -> str:
        del component
        return "f16"

    def check_ready(self) -> None:
        if not self.installed:
            raise ToolchainError("the fake emulator is not installed: install it")

    def compile(self, job: CompileJob, weights: WeightSource, progress: Progress) -> Skeleton:
        raise NotImplementedError

    def bind(
        self, skeletons: object, weights: object, folder: Path, progress: Progress
    ) -> list[Artifact]:
        raise NotImplementedError

    def find_skeleton(self, job: CompileJob, weights_key: str) -> Path | None:
        raise NotImplementedError

    def predict(self, work: Workload) -> Cost:
        raise NotImplementedError

    def conformance(self, bundle: Bundle, artifacts: object, folder: Path) -> list[Conformance]:
        del bundle, artifacts, folder
        return self.checked

    def open(self, artifact: Artifact, folder: Path) -> Runner:
        del folder
        if self.breaks:
            raise ToolchainError("the file cannot be loaded")
        component = artifact.component
        corrupt = self.corrupt if self.spoilt in (None, component) else lambda x: x
        return FakeRunner(component, INTERFACES[component], self.runs, corrupt, self.rewire)

    def interpret(
        self, job: CompileJob, weights: WeightSource, progress: Progress
    ) -> Runner | None:
        del weights, progress
        if self.lowering is not None:
            raise self.lowering
        if self.lowered is None:
            return None
        return FakeRunner(job.component, INTERFACES[job.component], self.runs, self.lowered)

    def run_seconds(self, artifact: Artifact, folder: Path) -> float | None:
        del folder
        if self.slow_sizes is not None and artifact.size not in self.slow_sizes:
            return None
        return self.seconds


def make_artifact(folder: Path, component: str, content: str = "v1", size: Size = SIZE) -> Artifact:
    path = folder / f"{component}.bin"
    path.write_text(content)
    return Artifact(
        component=component,
        target="fake",
        chip="chip",
        size=size if INTERFACES[component].has_size else None,
        batch=1,
        precision="f16",
        path=path.name,
        files=(),
        blake3=blake3_of(path),
        key=f"{component} {content}",
        weights_key=f"weights of {component}",
        reused=False,
        why="",
        how="bound",
        predicted_ms=None,
    )


@dataclass(frozen=True)
class Place:
    """A bundle and a folder of artifacts of all its components."""

    bundle: Path
    artifacts: Path

    def recompile(self, component: str, content: str) -> None:
        """Replace one artifact by another of the same name."""
        manifest = Manifest.load(self.artifacts)
        new = make_artifact(self.artifacts, component, content)
        kept = [new if a.component == component else a for a in manifest.artifacts]
        replace(manifest, artifacts=kept).save()

    def put_beside(self, component: str, weights: str) -> None:
        """Let an artifact have a file of weights, and write it."""
        manifest = Manifest.load(self.artifacts)
        name = f"{component}.weights"
        (self.artifacts / name).write_text(weights)
        with_file = [
            replace(a, files=(name,)) if a.component == component else a for a in manifest.artifacts
        ]
        replace(manifest, artifacts=with_file).save()

    def add_size(self, component: str, size: Size) -> None:
        """Add an artifact of another size, in the same file."""
        manifest = Manifest.load(self.artifacts)
        new = make_artifact(self.artifacts, component, size=size)
        replace(manifest, artifacts=[*manifest.artifacts, new]).save()


def make_component(bundle: Path, name: str) -> BundleComponent:
    (bundle / name).mkdir(parents=True)
    for file in ("model.onnx", "model.onnx.data"):
        (bundle / name / file).write_bytes(b"")
    return BundleComponent(
        name=name,
        graph=f"{name}/model.onnx",
        weights=f"{name}/model.onnx.data",
        interface=INTERFACES[name],
        graph_sha256="",
        weights_key=f"weights of {name}",
        weights_bytes=0,
        parameters=0,
        template_key="",
    )


def judge(
    request: ValidateRequest, targets: Mapping[str, Target], reference: OpenReference
) -> Report:
    """Validate over stand-ins; their bundle was made from nothing that could be looked at."""
    return validate(
        request,
        open_target=targets.__getitem__,
        open_reference=reference,
        check_exports=lambda *_, **__: [],
    )
