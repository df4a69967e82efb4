"""Every container and spelling of the same weights exports to the same bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import safetensors.torch
import torch

from converter.bundle import Bundle
from converter.containers.opening import open_checkpoint
from converter.export import ExportRequest, export
from converter.inspection import inspect
from tests.conftest import SmallModel

Weights = dict[str, torch.Tensor]


@dataclass
class Files:
    """What a user would give."""

    checkpoint: Path | None = None
    parts: Mapping[str, Path] = field(default_factory=dict)
    variant: str | None = None
    ema: bool = False


def exported(files: Files, output: Path, *components: str) -> Bundle:
    request = ExportRequest(
        files.checkpoint,
        output,
        profile="diffusers",
        components=components or None,
        parts=files.parts,
        variant=files.variant,
        ema=files.ema,
    )
    return export(request)


def assert_same_weights(found: Bundle, expected: Bundle) -> None:
    assert found.components
    for name, component in found.components.items():
        theirs = expected.folder / expected.components[name].weights
        assert (found.folder / component.weights).read_bytes() == theirs.read_bytes(), name


@pytest.mark.parametrize(
    "fixture", ["diffusers_folder", "sharded", "pickled", "pickled_before_zip"]
)
def test_a_container_exports_what_the_single_file_does(
    fixture: str, request: pytest.FixtureRequest, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    bundle = exported(Files(request.getfixturevalue(fixture)), tmp_path)
    assert_same_weights(bundle, diffusers_bundle)


def test_one_shard_stands_for_all(sharded: Path, diffusers_bundle: Bundle, tmp_path: Path) -> None:
    shard = sharded.with_name("model-00002-of-00003.safetensors")
    bundle = exported(Files(shard), tmp_path, "text_encoder", "vae_decoder")
    assert_same_weights(bundle, diffusers_bundle)
    names = {Path(source["path"]).name for source in bundle.sources}
    assert len(names) == len(bundle.sources) > 1
    assert names <= {f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)}
    assert {source["role"] for source in bundle.sources} == {"checkpoint"}


def test_full_precision_is_taken_unless_a_variant_is_asked_for(
    diffusers_folder: Path, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    dtypes = {i.dtype for i in open_checkpoint(diffusers_folder).tensors.values()}
    assert dtypes == {"F32"}
    half = Files(diffusers_folder, variant="fp16")
    assert {i.dtype for i in open_checkpoint(diffusers_folder, "fp16").tensors.values()} == {"F16"}
    bundle = exported(half, tmp_path, "vae_encoder")
    assert_same_weights(bundle, diffusers_bundle)
    names = {Path(source["path"]).name for source in bundle.sources}
    assert "diffusion_pytorch_model.fp16.safetensors" in names
    assert bundle.command[bundle.command.index("--variant") + 1] == "fp16"


def save_below(weights: Weights, prefix: str, path: Path, new: str = "") -> Path:
    below = {new + n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
    safetensors.torch.save_file(below, path)
    return path


UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."


def test_parts_given_separately_make_a_whole(
    weights: Weights, diffusers_folder: Path, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    parts = {
        "unet": save_below(weights, UNET, tmp_path / "unet.safetensors"),
        "vae": diffusers_folder / "vae" / "diffusion_pytorch_model.safetensors",
        "text_encoder": diffusers_folder / "text_encoder",
    }
    bundle = exported(Files(parts=parts), tmp_path / "out")
    assert_same_weights(bundle, diffusers_bundle)
    assert {source["role"] for source in bundle.sources} == {"unet", "vae", "text_encoder"}


COMPONENTS_OF = {
    "unet": ["unet"],
    "vae": ["vae_encoder", "vae_decoder"],
    "text_encoder": ["text_encoder"],
}
SPELLINGS = {
    "unet with prefix": ("unet", UNET, UNET),
    "unet as ComfyUI saves it": ("unet", UNET, "diffusion_model."),
    "vae with prefix": ("vae", VAE, VAE),
    "vae without": ("vae", VAE, ""),
    "text encoder with prefix": ("text_encoder", TEXT, TEXT),
    "text encoder without": ("text_encoder", TEXT + "transformer.", ""),
    "text encoder, no infix": ("text_encoder", TEXT + "transformer.text_model.", ""),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_a_part_replaces_the_checkpoints_own(
    case: str, weights: Weights, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    part, prefix, new = SPELLINGS[case]
    path = save_below(weights, prefix, tmp_path / "part.safetensors", new)
    spoiled = {n: t + 1 if n.startswith(prefix) else t for n, t in weights.items()}
    safetensors.torch.save_file(spoiled, tmp_path / "base.safetensors")
    files = Files(tmp_path / "base.safetensors", {part: path})
    bundle = exported(files, tmp_path / "out", *COMPONENTS_OF[part])
    assert_same_weights(bundle, diffusers_bundle)
    assert [source["role"] for source in bundle.sources].count(part) == 1


def test_a_whole_checkpoint_can_give_one_part(
    small_model: SmallModel, weights: Weights, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    base = save_below(
        {n: t for n, t in weights.items() if not n.startswith(VAE)}, "", tmp_path / "base"
    )
    assert inspect(base).missing == {"vae": "--vae"}
    files = Files(base, {"vae": small_model.checkpoint})
    bundle = exported(files, tmp_path / "out", "text_encoder", "vae_decoder")
    assert_same_weights(bundle, diffusers_bundle)


def test_only_what_a_component_reads_is_in_its_key(
    weights: Weights, small_model: SmallModel, tmp_path: Path
) -> None:
    bundles = []
    for factor in (1, 2):
        vae = save_below(
            {name: tensor * factor for name, tensor in weights.items()},
            VAE,
            tmp_path / f"{factor}.safetensors",
        )
        files = Files(small_model.checkpoint, {"vae": vae})
        bundles.append(exported(files, tmp_path / str(factor), "text_encoder", "vae_decoder"))
    same = {
        name: component.weights_key == bundles[1].components[name].weights_key
        for name, component in bundles[0].components.items()
    }
    assert same == {"text_encoder": True, "vae_decoder": False}


def test_ema_copies_are_named_and_taken(
    weights: Weights, diffusers_bundle: Bundle, tmp_path: Path
) -> None:
    copies = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): tensor
        for name, tensor in weights.items()
        if name.startswith(UNET)
    }
    trained = {n: t + 1 if n.startswith(UNET) else t for n, t in weights.items()}
    path = tmp_path / "ema.safetensors"
    safetensors.torch.save_file({**trained, **copies}, path)
    assert inspect(path).has_ema
    assert_same_weights(exported(Files(path, ema=True), tmp_path / "out", "unet"), diffusers_bundle)


def test_scaled_float8_is_multiplied_by_its_scale(weights: Weights, tmp_path: Path) -> None:
    quantised: Weights = {UNET + "scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    descaled: Weights = {}
    for number, (name, tensor) in enumerate(weights.items()):
        dtype = torch.float8_e5m2 if number % 4 == 0 else torch.float8_e4m3fn
        if tensor.dim() == 2 and name.startswith(UNET):
            rows = number % 3 == 0
            scale = tensor.float().abs().amax(dim=1 if rows else (0, 1)) / 100
            spread = scale.reshape(-1, 1)
            quantised[name] = (tensor / spread).to(dtype)
            quantised[name.replace(".weight", ".scale_weight")] = scale
            descaled[name] = quantised[name].float() * spread
        else:
            quantised[name] = tensor
            descaled[name] = tensor
    safetensors.torch.save_file(quantised, tmp_path / "float8.safetensors")
    safetensors.torch.save_file(descaled, tmp_path / "float32.safetensors")
    found = inspect(tmp_path / "float8.safetensors")
    assert found.problems == []
    assert_same_weights(
        exported(Files(tmp_path / "float8.safetensors"), tmp_path / "a", "unet"),
        exported(Files(tmp_path / "float32.safetensors"), tmp_path / "b", "unet"),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_plain_dtypes_widen_exactly(dtype: torch.dtype, weights: Weights, tmp_path: Path) -> None:
    narrow = {name: tensor.to(dtype) for name, tensor in weights.items()}
    safetensors.torch.save_file(narrow, tmp_path / "narrow.safetensors")
    wide = {name: tensor.float() for name, tensor in narrow.items()}
    safetensors.torch.save_file(wide, tmp_path / "wide.safetensors")
    assert_same_weights(
        exported(Files(tmp_path / "narrow.safetensors"), tmp_path / "a", "text_encoder"),
        exported(Files(tmp_path / "wide.safetensors"), tmp_path / "b", "text_encoder"),
    )
