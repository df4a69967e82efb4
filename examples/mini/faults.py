"""Faults planted in the miniature, each of which the verdict has to catch and to blame rightly.

    python -m examples.mini.faults [--only NAME] [--bm1684x]

Every fault is planted where it would really happen: in a compiled artifact, in the exported bundle,
in the sampling loop, or in a checkpoint. The table that is printed has what the verdict then said.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx_ir as ir

from converter.adapters.choice import AdapterChoice
from converter.bundle import Bundle
from converter.export import ExportRequest, export
from converter.files import blake3_of, read_json, sha256_of, write_json
from converter.sizes import Size
from converter.weights import Array
from examples.mini.pictures import Scene
from examples.mini.score import FILES, QUICK
from passes.weights import weight_places
from runtime.sampling import Pipeline
from targets.base import Artifact
from targets.compile import CompileRequest, compile_bundle
from targets.manifest import MANIFEST_FILE, Manifest
from validate.base import Level, Report, Verdict
from validate.plan import FOLDER
from validate.validate import ValidateRequest, validate

SIZE = Size(64, 64)
SCENE = Scene("circle", "red", "blue")
RECOGNISER = FILES / "recogniser.py"

CONVOLUTION = "down_blocks.1.resnets.0.conv2"
DECODER_CONVOLUTION = "decoder.up_blocks.1.resnets.0.conv1"
PORT = "down_block_additional_residual_5"
OVERFLOWING = "first_stage_model.decoder.mid.block_1.conv1"
"""Its output goes into a group norm and nowhere else, which takes any factor out again."""
OVERFLOWED = "decoder.mid_block.resnets.0.conv1"
"""The same as diffusers calls it."""


@dataclass(frozen=True)
class Bench:
    """Where faults are planted: a right bundle, its ONNX Runtime artifacts, and empty folders."""

    bundle: Bundle
    artifacts: Path
    scratch: Path

    @classmethod
    def prepare(cls, folder: Path) -> "Bench":
        """Export and compile the miniature with its LCM-LoRA."""
        bundle = export_mini(folder / "bundle")
        artifacts = compile_mini(bundle, folder / "artifacts")
        return cls(bundle, artifacts, folder)

    def artifacts_copy(self, name: str) -> Path:
        """The artifacts once more, to be spoilt; they still name the right bundle.

        What was judged of them is left behind: not every fault is in what that is known by.
        """
        left = shutil.ignore_patterns(FOLDER)
        return Path(shutil.copytree(self.artifacts, self.scratch / name, ignore=left))

    def judge(self, artifacts: Path, **options: Any) -> Report:
        """The verdict on a folder; what the right bundle gives is computed once for all of them."""
        shared = {"references": self.artifacts.parent / "references", **options}
        return validate(ValidateRequest(artifacts, **shared))

    def bundle_copy(self, name: str) -> Bundle:
        """The bundle once more, to be spoilt."""
        return Bundle.load(Path(shutil.copytree(self.bundle.folder, self.scratch / name)))


def export_mini(
    folder: Path, checkpoint: Path = FILES / "mini-sd15.safetensors", scale: float = 1.0
) -> Bundle:
    """The miniature with its LCM-LoRA merged."""
    lora = AdapterChoice(FILES / "mini-lcm-lora.safetensors", scale)
    return export(ExportRequest(checkpoint, folder, (lora,)))


def compile_mini(
    bundle: Bundle, folder: Path, target: str = "onnxruntime", precision: Mapping[str, str] = {}
) -> Path:
    """Compile it at one size."""
    compile_bundle(CompileRequest(bundle.folder, target, (SIZE,), folder, precision=precision))
    return folder


def edit_graph(artifacts: Path, component: str, edit: Callable[[ir.Model], None]) -> None:
    """Change an artifact's graph, as a bad compiler would; the manifest vouches for the result."""
    artifact = _artifact(artifacts, component)
    path = artifacts / artifact.path
    _rewrite(path, edit)
    data = read_json(artifacts / MANIFEST_FILE, "a manifest")
    for record in data["artifacts"]:
        if record["path"] == artifact.path:
            record["blake3"] = blake3_of(path)
    write_json(artifacts / MANIFEST_FILE, data)


def edit_weight(
    artifacts: Path, component: str, weight: str, edit: Callable[[Array], Array]
) -> None:
    """Change a weight of an artifact, as bad binding would."""
    artifact = _artifact(artifacts, component)
    graph = artifacts / artifact.path
    _write_weight(graph, artifacts / artifact.files[0], weight, edit)


def edit_exported_weight(
    bundle: Bundle, component: str, weight: str, edit: Callable[[Array], Array]
) -> None:
    """Change a weight of a bundle, as a bad export would."""
    record = bundle.components[component]
    graph, weights = bundle.folder / record.graph, bundle.folder / record.weights
    _write_weight(graph, weights, weight, edit)


def edit_exported_graph(bundle: Bundle, component: str, edit: Callable[[ir.Model], None]) -> Bundle:
    """Change a bundle's graph, as a bad tracer would; return the bundle that vouches for it."""
    record = bundle.components[component]
    path = bundle.folder / record.graph
    _rewrite(path, edit)
    changed = replace(record, graph_sha256=sha256_of(path))
    spoilt = replace(bundle, components={**bundle.components, component: changed})
    spoilt.save()
    return spoilt


def _artifact(artifacts: Path, component: str) -> Artifact:
    return next(a for a in Manifest.load(artifacts).artifacts if a.component == component)


def _rewrite(path: Path, edit: Callable[[ir.Model], None]) -> None:
    model = ir.load(path)
    edit(model)
    path.unlink()  # it may be a link to the cache
    ir.save(model, path)


def _write_weight(graph: Path, weights: Path, name: str, edit: Callable[[Array], Array]) -> None:
    place = weight_places(ir.load(graph))[name]
    content = bytearray(weights.read_bytes())
    span = slice(place.offset, place.offset + place.nbytes)
    values = np.frombuffer(content[span], place.dtype).reshape(place.shape)
    content[span] = edit(values).astype(place.dtype).tobytes()
    weights.unlink()  # it may be a link to the bundle
    weights.write_bytes(content)


def swap_rows(values: Array) -> Array:
    """Exchange the first two output channels."""
    return np.concatenate([values[[1, 0]], values[2:]])


def ignore_port(model: ir.Model) -> None:
    """Let what was added to a residual be the residual alone."""
    port = next(value for value in model.graph.inputs if value.name == PORT)
    ((node, place),) = port.uses()
    residual = node.inputs[1 - place]
    assert residual is not None
    node.replace_input_with(place, residual)
    # x + x is not x: what the addition gives is replaced by what it is given.
    node.outputs[0].replace_all_uses_with(residual)


def truncate_timestep(model: ir.Model) -> None:
    """Make an integer of the timestep."""
    port = next(value for value in model.graph.inputs if value.name == "timestep")
    uses = list(port.uses())
    whole = ir.node("Cast", [port], {"to": ir.DataType.INT64})
    back = ir.node("Cast", [whole.outputs[0]], {"to": ir.DataType.FLOAT})
    for name, value in (("whole", whole.outputs[0]), ("back", back.outputs[0])):
        value.name = f"timestep_{name}"
        value.dtype = ir.DataType.INT64 if name == "whole" else ir.DataType.FLOAT
        value.shape = port.shape
    model.graph.insert_before(model.graph[0], [whole, back])
    for node, place in uses:
        node.replace_input_with(place, back.outputs[0])


def bake_timestep(model: ir.Model) -> None:
    """Put the tracer's example in the timestep's place."""
    port = next(value for value in model.graph.inputs if value.name == "timestep")
    tensor = ir.tensor(np.array([981.0], np.float32), name="example_timestep")
    baked = ir.Value(name=tensor.name, shape=ir.Shape([1]), type=ir.TensorType(tensor.dtype))
    baked.const_value = tensor
    model.graph.initializers[tensor.name or ""] = baked
    port.replace_all_uses_with(baked)


def bake_size(model: ir.Model) -> None:
    """Put the tracer's example in the place of a shape that follows the picture."""
    node = next(n for n in model.graph if n.op_type == "Reshape" and not _is_constant(n.inputs[1]))
    first = model.graph.initializers["conv_in.weight"].shape
    assert first is not None
    tensor = ir.tensor(np.array([1, first[0], 16, 24], np.int64), name="example_shape")
    baked = ir.Value(name=tensor.name, shape=ir.Shape([4]), type=ir.TensorType(tensor.dtype))
    baked.const_value = tensor
    model.graph.initializers[tensor.name or ""] = baked
    node.replace_input_with(1, baked)


def _is_constant(value: ir.Value | None) -> bool:
    return value is None or value.const_value is not None


def scale_latent(model: ir.Model) -> None:
    """Let the decoder take its latent for one that is scaled already."""
    (port,) = model.graph.inputs
    uses = list(port.uses())
    tensor = ir.tensor(np.array(0.18215, np.float32), name="scaling_factor")
    factor = ir.Value(name=tensor.name, shape=ir.Shape([]), type=ir.TensorType(tensor.dtype))
    factor.const_value = tensor
    model.graph.initializers[tensor.name or ""] = factor
    node = ir.node("Mul", [port, factor])
    node.outputs[0].name, node.outputs[0].dtype = "scaled_latent", ir.DataType.FLOAT
    node.outputs[0].shape = port.shape
    model.graph.insert_before(model.graph[0], node)
    for user, place in uses:
        user.replace_input_with(place, node.outputs[0])


def drop_final_norm(model: ir.Model) -> None:
    """Let the text encoder's last norm do nothing."""
    norm = [node for node in model.graph if node.op_type == "LayerNormalization"][-1]
    hidden = norm.inputs[0]
    assert hidden is not None
    same = ir.node("Identity", [hidden])
    same.outputs[0].name, norm.outputs[0].name = norm.outputs[0].name, "unused_norm"
    same.outputs[0].shape, same.outputs[0].type = norm.outputs[0].shape, norm.outputs[0].type
    norm.outputs[0].replace_all_uses_with(same.outputs[0], replace_graph_outputs=True)
    model.graph.insert_after(norm, same)
    model.graph.remove(norm, safe=True)


@contextmanager
def unscaled_loop() -> Iterator[None]:
    """The sampling loop hands the decoder a latent that it forgot to scale back."""

    def decode(pipeline: Pipeline, latent: Array) -> Array:
        return np.asarray(pipeline.networks["vae_decoder"](latent)[0][0])

    with patch.object(Pipeline, "decode", decode):
        yield


def overflowing_checkpoint(path: Path, factor: float = 4096.0) -> Path:
    """A VAE whose activations leave the range of fp16 between two layers, and fp32 nothing of."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(FILES / "mini-sd15.safetensors")
    for kind in ("weight", "bias"):
        name = f"{OVERFLOWING}.{kind}"
        tensors[name] = tensors[name].astype(np.float32) * np.float32(factor)
    save_file(tensors, path)
    return path


@dataclass(frozen=True)
class Fault:
    """A fault: what it is, where it is planted, and the verdict on what it spoils.

    `component` and `words` are what the verdict has to name, `level` the first level that can see
    it.
    """

    name: str
    where: str
    level: Level
    component: str
    words: str
    judge: Callable[[Bench], Report]
    target: str = "onnxruntime"
    also: frozenset[str] = frozenset()
    """Components that it is the fault of as well."""


def in_artifact(component: str, edit: Callable[[ir.Model], None]) -> Callable[[Bench], Report]:
    """Spoil the graph of an artifact and judge the folder."""

    def judge(bench: Bench) -> Report:
        artifacts = bench.artifacts_copy(f"{component}-{edit.__name__}")
        edit_graph(artifacts, component, edit)
        return bench.judge(artifacts)

    return judge


def in_weights(
    component: str, weight: str, edit: Callable[[Array], Array]
) -> Callable[[Bench], Report]:
    """Spoil a weight of an artifact and judge the folder."""

    def judge(bench: Bench) -> Report:
        artifacts = bench.artifacts_copy(f"{component}-{edit.__name__}")
        edit_weight(artifacts, component, weight, edit)
        return bench.judge(artifacts)

    return judge


def in_export(component: str, edit: Callable[[ir.Model], None]) -> Callable[[Bench], Report]:
    """Spoil a graph of the bundle, compile from it, and judge the folder."""

    def judge(bench: Bench) -> Report:
        bundle = bench.bundle_copy(f"bundle-{edit.__name__}")
        bundle = edit_exported_graph(bundle, component, edit)
        artifacts = bench.scratch / f"compiled-{edit.__name__}"
        return bench.judge(compile_mini(bundle, artifacts))

    return judge


def hundredth_more(values: Array) -> Array:
    """One per cent more."""
    return values * np.float32(1.01)


def _weight_in_export(bench: Bench) -> Report:
    bundle = bench.bundle_copy("bundle-weight")
    edit_exported_weight(bundle, "unet", f"{CONVOLUTION}.weight", hundredth_more)
    artifacts = compile_mini(bundle, bench.scratch / "compiled-weight")
    return bench.judge(artifacts, references=None)


def _half_lora(bench: Bench) -> Report:
    """The weights of half the scale, in a bundle that says that it is the whole."""
    half = export_mini(bench.scratch / "half", scale=0.5)
    bundle = bench.bundle_copy("bundle-lora")
    for component in ("unet",):
        weights = bundle.components[component].weights
        shutil.copyfile(half.folder / weights, bundle.folder / weights)
    artifacts = compile_mini(bundle, bench.scratch / "compiled-lora")
    return bench.judge(artifacts, references=None)


def _unscaled_bundle(bench: Bench) -> Report:
    """A bundle that does not say how latents are scaled."""
    bundle = bench.bundle_copy("bundle-scale")
    architecture = {**bundle.architecture, "vae": {**bundle.architecture["vae"]}}
    architecture["vae"]["scaling_factor"] = 1.0
    replace(bundle, architecture=architecture).save()
    artifacts = bench.artifacts_copy("artifacts-scale")
    return bench.judge(artifacts, bundle=bundle.folder)


def _unscaled_loop(bench: Bench) -> Report:
    artifacts = bench.artifacts_copy("artifacts-loop")
    picture = replace(QUICK, prompt=SCENE.caption())
    with unscaled_loop():
        return bench.judge(artifacts, picture=picture, recogniser=RECOGNISER)


def _overflow(bench: Bench) -> Report:
    checkpoint = overflowing_checkpoint(bench.scratch / "overflow.safetensors")
    bundle = export_mini(bench.scratch / "bundle-overflow", checkpoint)
    request = CompileRequest(
        bundle.folder,
        "bm1684x",
        (SIZE,),
        bench.scratch / "overflow",
        precision={"vae_decoder": "f16"},
        components=("vae_decoder",),
    )
    compile_bundle(request)
    return bench.judge(request.output)


FAULTS = (
    Fault(
        "one weight x 1.01",
        "artifact",
        Level.COMPONENT,
        "unet",
        CONVOLUTION,
        in_weights("unet", f"{CONVOLUTION}.weight", hundredth_more),
    ),
    Fault("one weight x 1.01", "export", Level.EXPORT, "unet", CONVOLUTION, _weight_in_export),
    Fault(
        "two channels swapped",
        "artifact",
        Level.COMPONENT,
        "vae_decoder",
        DECODER_CONVOLUTION,
        in_weights("vae_decoder", f"{DECODER_CONVOLUTION}.weight", swap_rows),
    ),
    Fault(
        "a residual port ignored",
        "artifact",
        Level.COMPONENT,
        "unet",
        PORT,
        in_artifact("unet", ignore_port),
    ),
    Fault(
        "a residual port ignored",
        "exported graph",
        Level.EXPORT,
        "unet",
        PORT,
        in_export("unet", ignore_port),
    ),
    Fault(
        "the timestep truncated to int",
        "artifact",
        Level.COMPONENT,
        "unet",
        "time_proj",
        in_artifact("unet", truncate_timestep),
    ),
    Fault(
        "the timestep truncated to int",
        "exported graph",
        Level.EXPORT,
        "unet",
        "timestep_whole (Cast)",
        in_export("unet", truncate_timestep),
    ),
    Fault(
        "the timestep baked in",
        "exported graph",
        Level.EXPORT,
        "unet",
        "example_timestep = [981]",
        in_export("unet", bake_timestep),
    ),
    Fault(
        "the VAE scale forgotten",
        "artifact",
        Level.COMPONENT,
        "vae_decoder",
        "post_quant_conv",
        in_artifact("vae_decoder", scale_latent),
    ),
    Fault(
        "the VAE scale forgotten",
        "bundle.json",
        Level.EXPORT,
        "vae_decoder",
        "vae.scaling_factor 1.0",
        _unscaled_bundle,
        also=frozenset({"text_encoder", "unet", "vae_encoder"}),  # bundle.json is everybody's
    ),
    Fault(
        "the VAE scale forgotten",
        "sampling loop",
        Level.PICTURE,
        "picture",
        "even the reference does not draw what is asked",
        _unscaled_loop,
    ),
    Fault(
        "a LoRA merged at half scale",
        "export",
        Level.EXPORT,
        "unet",
        "mini-lcm-lora.safetensors is merged at 0.5 ",
        _half_lora,
    ),
    Fault(
        "the text encoder's final norm dropped",
        "artifact",
        Level.COMPONENT,
        "text_encoder",
        "final_layer_norm",
        in_artifact("text_encoder", drop_final_norm),
    ),
    Fault(
        "fp16 overflow in the VAE",
        "checkpoint",
        Level.COMPONENT,
        "vae_decoder",
        OVERFLOWED,
        _overflow,
        target="bm1684x",
    ),
)


def main() -> None:
    """Plant, judge, and print the table."""
    parser = argparse.ArgumentParser(description="Plant faults in the miniature.")
    parser.add_argument("--only", default="", help="faults whose name or place holds this")
    parser.add_argument("--bm1684x", action="store_true", help="also those that need its toolchain")
    options = parser.parse_args()
    print("| fault | planted in | caught by | words |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench.prepare(Path(folder))
        for fault in FAULTS:
            mine = options.only in f"{fault.name} {fault.where}"
            if mine and (options.bm1684x or fault.target == "onnxruntime"):
                print(row(fault, fault.judge(bench)), flush=True)


def row(fault: Fault, report: Report) -> str:
    """One line of the table, from what the verdict says."""
    levels, words = caught(report)
    return f"| {fault.name} | {fault.where} | {', '.join(levels) or 'nothing'} | {words} |"


def caught(report: Report) -> tuple[list[str], str]:
    """The levels that fail with their components, and the words of the first."""
    failed = [result for result in report.results if result.verdict is Verdict.FAIL]
    levels = list(dict.fromkeys(f"{result.level}: {result.component}" for result in failed))
    first = [r for r in failed if r.level == Level.EXPORT] or failed
    words = ["; ".join(filter(None, (r.sentence, r.blame))) for r in first]
    return levels, words[0] if words else ""


if __name__ == "__main__":
    main()
