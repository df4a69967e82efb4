"""Every tensor derived once more from the sources: what is wrong is named, what is right passes."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from converter.adapters.choice import AdapterChoice
from converter.bundle import Bundle
from converter.errors import InputError
from converter.export import ExportRequest, export
from converter.profiles import get_profile
from converter.source import open_source
from converter.weights import Array
from examples.mini.faults import edit_exported_weight, hundredth_more, swap_rows
from examples.random_checkpoint import write_checkpoint, write_controlnet, write_lora
from examples.small_models import MODELS, SMALL
from tests.conftest import SmallModel
from validate.base import Level, Result, Verdict
from validate.exported.check import check_exports
from validate.exported.names import Stored, stored_tensors
from validate.exported.origin import LackingError, derive, facts, open_origins
from validate.judge import judges
from validate.references import References

WEIGHT = "down_blocks.1.resnets.0.conv1.weight"


@pytest.fixture
def bundle(small_bundle: Bundle, tmp_path: Path) -> Bundle:
    """One LoRA merged at 0.8, to be spoilt."""
    return Bundle.load(Path(shutil.copytree(small_bundle.folder, tmp_path / "bundle")))


def checked(bundle: Bundle, component: str = "unet") -> Result:
    with References(bundle) as references:
        (result,) = check_exports(bundle, [component], references, judges(), lambda _: None)
    return result


def words(result: Result) -> str:
    return " | ".join(check.ruling.sentence for check in result.checks)


def test_a_right_bundle_is_what_its_sources_give(bundle: Bundle) -> None:
    origins = open_origins(bundle)
    assert facts(bundle, origins) == []
    for component in bundle.components:
        derived = derive(bundle, component, origins)
        assert derived.count == len(bundle.weights(component).names())
        assert (derived.different, derived.own) == ({}, {})
        assert derived.largest < 7e-8
        assert derived.scales == pytest.approx([1.0], abs=1e-7)
    result = checked(bundle)
    assert (result.verdict, result.level) == (Verdict.PASS, Level.EXPORT)
    assert "all 688 tensors are what small.safetensors, lora.safetensors give" in words(result)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (hundredth_more, f"{WEIGHT}: it is 1.01 times what its sources give"),
        (swap_rows, f"{WEIGHT}: rows 0 and 1 are exchanged"),
        (lambda x: x + 0.01, f"{WEIGHT}: 64 of its 64 rows differ"),
        (lambda x: np.where(x == x.max(), np.nan, x), f"{WEIGHT}: 1 of its 64 rows differ"),
    ],
    ids=["gain", "rows", "offset", "nan"],
)
def test_a_wrong_tensor_is_named(edit: object, said: str, bundle: Bundle) -> None:
    edit_exported_weight(bundle, "unet", WEIGHT, edit)  # type: ignore[arg-type]
    result = checked(bundle)
    assert result.verdict is Verdict.FAIL
    assert result.worst.ruling.sentence.startswith(said)
    assert "1 of 688 tensors are not what their sources give" in words(result)


@pytest.mark.parametrize("scale", [0.0, 0.4, 1.6])
def test_another_scale_of_a_lora_is_measured(
    scale: float, bundle: Bundle, small_model: SmallModel, tmp_path: Path
) -> None:
    other = export(
        ExportRequest(
            small_model.checkpoint, tmp_path / "x", (AdapterChoice(small_model.lora, scale),)
        )
    )
    weights = bundle.components["unet"].weights
    shutil.copyfile(other.folder / weights, bundle.folder / weights)
    result = checked(bundle)
    share = f"lora.safetensors is merged at {scale / 0.8:.3g} of the scale asked for (0.8)"
    assert result.verdict is Verdict.FAIL and share in words(result)
    if scale == 0:
        assert "no adapter is merged into it" in words(result)


def test_two_loras_are_told_apart(small_model: SmallModel, tmp_path: Path) -> None:
    second = tmp_path / "second.safetensors"
    write_lora(second, SMALL, rank=2, seed=5)
    choices = (AdapterChoice(small_model.lora, 0.5), AdapterChoice(second, 1.0, (("mid", 0.25),)))
    made = export(ExportRequest(small_model.checkpoint, tmp_path / "both", choices))
    less = (choices[0], replace(choices[1], scale=0.5, parts=(("mid", 0.125),)))
    other = export(ExportRequest(small_model.checkpoint, tmp_path / "less", less))
    assert derive(made, "unet", open_origins(made)).different == {}
    weights = made.components["unet"].weights
    shutil.copyfile(other.folder / weights, made.folder / weights)
    assert derive(made, "unet", open_origins(made)).scales == pytest.approx([1.0, 0.5], abs=1e-6)


def test_other_kinds_are_computed_by_the_exporters_own_formula_and_that_is_said(
    small_model: SmallModel, tmp_path: Path
) -> None:
    """A difference of weights beside a plain LoRA."""
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    key = f"lora_unet_{name.replace('.', '_')}"
    rng = np.random.default_rng(0)
    path = tmp_path / "full.safetensors"
    safetensors.numpy.save_file(
        {f"{key}.diff": rng.standard_normal((128, 128), np.float32) / 100}, path
    )
    choices = (AdapterChoice(small_model.lora), AdapterChoice(path))
    made = export(ExportRequest(small_model.checkpoint, tmp_path / "made", choices))
    derived = derive(made, "unet", open_origins(made))
    assert (derived.different, derived.own) == ({}, {"full difference": 1})
    assert "1 of them by the exporter's own formula for full difference" in words(checked(made))


def test_what_bundle_json_says_of_the_model_is_checked(bundle: Bundle) -> None:
    vae = {**bundle.architecture["vae"], "scaling_factor": 1.0}
    wrong = replace(bundle, architecture={**bundle.architecture, "vae": vae})
    assert facts(wrong, open_origins(wrong)) == [
        "bundle.json says vae.scaling_factor 1.0, the files say 0.18215"
    ]
    other = replace(bundle, prediction_type="v_prediction")
    assert "bundle.json says prediction v_prediction" in facts(other, open_origins(other))[0]


def test_without_the_sources_it_is_no_pass(small_model: SmallModel, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copy(small_model.checkpoint, tmp_path / "mine.safetensors"))
    made = export(ExportRequest(checkpoint, tmp_path / "made", components=("text_encoder",)))
    assert checked(made, "text_encoder").verdict is Verdict.PASS
    checkpoint.rename(tmp_path / "moved.safetensors")
    result = checked(made, "text_encoder")
    assert result.verdict is Verdict.INCOMPLETE
    assert f"not compared with what it was made from: {checkpoint} is not there" in words(result)
    shutil.copy(small_model.lora, checkpoint)
    assert f"{checkpoint} has changed since" in words(checked(made, "text_encoder"))
    with pytest.raises(LackingError, match="does not say what it was made from"):
        open_origins(replace(made, recipe={}))


@pytest.mark.parametrize("name", [name for name in MODELS if not name.endswith("-full")])
def test_diffusers_names_every_tensor_of_every_family(name: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.safetensors"
    write_checkpoint(checkpoint, MODELS[name])
    request = ExportRequest(checkpoint, tmp_path / "unused", profile="diffusers")
    source = open_source(request.files, get_profile("diffusers"), None)
    for component in source.components:
        found = stored_tensors(component, source.architecture, source.model.file.tensors)
        for rule in source.tables[component]:
            if not rule.needed:
                continue
            values = source.model.file.read(rule.source)
            expected: Array = rule.take(values).reshape(rule.shape)
            np.testing.assert_array_equal(found[rule.name].take(values).ravel(), expected.ravel())


def test_diffusers_names_every_tensor_of_controlnets(
    small_model: SmallModel, tmp_path: Path
) -> None:
    assert SMALL.unet is not None
    nets = {name: tmp_path / f"{name}.safetensors" for name in ("controlnet", "controlnet_2")}
    for seed, path in enumerate(nets.values()):
        write_controlnet(path, SMALL.unet, seed=seed)
    made = export(
        ExportRequest(small_model.checkpoint, tmp_path / "made", parts=nets, components=tuple(nets))
    )
    origins = open_origins(made)
    assert all(derive(made, name, origins).different == {} for name in nets)


def test_a_stand_in_remembers_what_was_cut_and_turned() -> None:
    values = np.arange(24.0).reshape(6, 4)
    stored = Stored("w", (6, 4))
    np.testing.assert_array_equal(stored[2:4, :].take(values), values[2:4])
    np.testing.assert_array_equal(stored[:, :].T.contiguous().take(values), values.T)
    convolution = Stored("c", (6, 4, 1, 1))[:, :, 0, 0]
    assert convolution.shape == (6, 4)
    np.testing.assert_array_equal(convolution.take(values.reshape(6, 4, 1, 1)), values)
    with pytest.raises(ValueError, match="cut along axis 1"):
        stored[:, 1:3]
    with pytest.raises(ValueError, match="element 1 of 6 is cut out"):
        stored[1]


def test_a_tensor_that_nobody_knows_is_no_pass(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("validate.exported.origin.stored_tensors", lambda *_: {})
    with pytest.raises(InputError, match="knows no source of"):
        derive(bundle, "unet", open_origins(bundle))
