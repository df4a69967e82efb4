"""The form offers what can work for what was chosen, and nothing else."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest

from converter.errors import InputError
from converter.profiles import PROFILES
from sdconv.page import choices
from sdconv.page.addons import Addon, read_addons, write_addons
from sdconv.page.choices import target_states
from sdconv.page.composing import Composing
from sdconv.page.desk import Desk
from sdconv.page.form import Form
from sdconv.page.limits import Limits
from sdconv.page.visitor import Visitor
from sdconv.page.workspace import Workspace
from targets.base import ToolchainError
from targets.onnxruntime import OnnxRuntimeTarget
from targets.registry import TARGETS, get_target
from tests.sdconv.page.conftest import uploaded

CHIP = "bm1684x"
CHOSEN = Form(model="small.safetensors", targets=("onnxruntime",), sizes=("64x64",))


@pytest.fixture
def composing(models: Workspace) -> Iterator[Composing]:
    desk = Desk(models, Limits())
    yield Composing(desk)
    desk.close()


@pytest.fixture
def ann() -> Visitor:
    return Visitor("browser ann")


def test_a_model_is_told_and_what_fits_it_is_offered(composing: Composing, ann: Visitor) -> None:
    settled = composing.settle(CHOSEN, ann)
    assert "small.safetensors" in settled.found
    assert settled.family == "sd15"
    assert settled.profile == "diffusers"
    assert settled.components == ["text_encoder", "unet", "vae_encoder", "vae_decoder"]
    assert settled.chosen_components == settled.components
    assert settled.chosen_sizes == ["64x64"]
    assert all(profile in PROFILES for _, profile in settled.profiles)


def test_the_profile_follows_the_targets_until_it_is_chosen(
    composing: Composing, ann: Visitor
) -> None:
    chip = replace(CHOSEN, targets=("onnxruntime", CHIP), profile="diffusers")
    expected = get_target(CHIP).expected_profile
    assert composing.settle(chip, ann, retargeted=True).profile == expected
    assert composing.settle(chip, ann).profile == "diffusers"


def test_precisions_are_those_of_the_chosen_targets(composing: Composing, ann: Visitor) -> None:
    form = replace(CHOSEN, targets=("onnxruntime", CHIP))
    form = replace(form, precision=json.dumps({CHIP: {"unet": "bf16"}}))
    table = composing.settle(form, ann).precisions
    assert f'data-target="{CHIP}" data-component="unet"' in table
    assert 'data-target="onnxruntime"' not in table  # it has one alone
    assert '<option value="bf16" selected>' in table


def test_sizes_that_the_ports_do_not_take_are_not_offered(
    composing: Composing, ann: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "SMALL", ("64x64", "72x64"))
    free = composing.settle(replace(CHOSEN, profile="diffusers"), ann)
    bound = composing.settle(replace(CHOSEN, profile="sd-lcm-tpu"), ann)
    assert (free.sizes, bound.sizes) == (["64x64", "72x64"], ["64x64"])


def test_typed_sizes_are_left_alone(composing: Composing, ann: Visitor) -> None:
    settled = composing.settle(replace(CHOSEN, sizes=(), more_sizes="192x64"), ann)
    assert settled.chosen_sizes == []


def test_components_that_were_left_out_stay_out(composing: Composing, ann: Visitor) -> None:
    form = replace(CHOSEN, components=("unet",), offered="unet vae_decoder")
    chosen = composing.settle(form, ann).chosen_components
    assert chosen == ["text_encoder", "unet", "vae_encoder"]  # new ones come in


def test_what_is_no_checkpoint_offers_nothing(composing: Composing, ann: Visitor) -> None:
    settled = composing.settle(replace(CHOSEN, model="style.safetensors"), ann)
    assert "Add it below" in settled.found
    assert not settled.sizes
    assert not settled.profiles


@pytest.mark.parametrize(
    "model", ["../x", "/etc/passwd", "http://host/x", "hf:owner/name", "note.txt"]
)
def test_what_cannot_be_opened_is_told(composing: Composing, ann: Visitor, model: str) -> None:
    (composing.desk.workspace.root / "note.txt").write_text("hello")
    settled = composing.settle(replace(CHOSEN, model=model), ann)
    assert 'role="alert"' in settled.found
    assert settled.family == ""


def test_nothing_chosen_says_what_to_do(composing: Composing, ann: Visitor) -> None:
    assert "Nothing is chosen yet" in composing.settle(Form(), ann).found
    chinese = replace(ann, language="zh")
    assert "尚未选择模型" in composing.settle(Form(), chinese).found
    assert "plan" not in composing.plan(Form(), ann)


def test_only_ready_targets_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def unready(_: object) -> None:
        raise ToolchainError("run 'sdconv toolchain install it'")

    monkeypatch.setattr(OnnxRuntimeTarget, "check_ready", unready)
    needs = {state.target.name: state.needs for state in target_states()}
    assert list(needs) == list(TARGETS)
    assert needs["onnxruntime"] == "run 'sdconv toolchain install it'"


def test_the_plan_tells_time_memory_disk_and_how_a_lora_fits(
    composing: Composing, ann: Visitor
) -> None:
    added, refusals = composing.add("", ["style.safetensors"], "")
    assert refusals == []
    plan = composing.plan(replace(CHOSEN, addons=added), ann)
    assert "This machine can do it" in plan
    assert "style.safetensors: LoRA, scale 1" in plan
    assert "keys used" in plan
    assert "Compiling unet 64x64 f32" in plan
    assert str(composing.desk.workspace.root) not in plan


def test_an_export_alone_needs_no_target(composing: Composing, ann: Visitor) -> None:
    plan = composing.plan(Form(model="small.safetensors", steps="export"), ann)
    assert "Exporting unet" in plan
    assert "Compiling" not in plan


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sizes": (), "more_sizes": "500x64"}, "the nearest that works is"),
        ({"sizes": (), "more_sizes": "big"}, "is not WIDTHxHEIGHT"),
        ({"batch": "many"}, "is no whole number"),
        ({"model": "style.safetensors"}, "wants a checkpoint"),
    ],
)
def test_what_cannot_work_is_told_before_it_starts(
    composing: Composing, ann: Visitor, changes: dict[str, str], reason: str
) -> None:
    plan = composing.plan(replace(CHOSEN, **changes), ann)  # type: ignore[arg-type]
    assert 'role="alert"' in plan
    assert reason in plan


def test_a_fault_is_told_and_the_page_goes_on(
    composing: Composing, ann: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Desk, "foresee", lambda *_: 1 / 0)
    assert "fault of sdconv itself (ZeroDivisionError)" in composing.plan(CHOSEN, ann)


def test_files_are_added_by_what_they_are_and_refused_with_a_reason(composing: Composing) -> None:
    workspace = composing.desk.workspace
    bad = uploaded(workspace, "holiday.jpg")
    good = uploaded(workspace, "style 2.safetensors", workspace.root / "style.safetensors")
    text, refusals = composing.add("", [str(bad), str(good), "small.safetensors", "../x"], "")
    assert [addon.name for addon in read_addons(text)] == ["style 2.safetensors"]
    assert len(refusals) == 3
    assert refusals[0].startswith("holiday.jpg:")
    assert "a checkpoint file, which cannot be added" in refusals[1]
    assert "no such file" in refusals[2]
    assert not bad.exists()


def test_the_lcm_switch(composing: Composing) -> None:
    assert composing.lcm_source("sd15", "base") == "hf:latent-consistency/lcm-lora-sdv1-5"
    assert composing.lcm_source("sd2", "base") is None
    lcm = Addon("l", "lora", "l", "sd15", ("LCM-LoRA", "64", 3))
    style = Addon("s", "lora", "s", "sd15", ("LoRA", "8", 3))
    assert read_addons(composing.without_lcm(write_addons([lcm, style]))) == (style,)
    assert composing.needs_fetching("hf:owner/name", "")
    assert not composing.needs_fetching("small.safetensors", "")


def test_an_export_is_gone_on_with_by_its_owner(
    composing: Composing, ann: Visitor, small_bundle_folder: str
) -> None:
    desk = composing.desk
    shutil.copytree(small_bundle_folder, desk.workspace.root / "bundle")
    settled = composing.settle(Form(bundle="bundle", targets=(CHIP,)), ann)
    assert settled.profile == "sd-lcm-tpu"
    assert [name for _, name in settled.profiles] == ["sd-lcm-tpu"]
    assert "unet" in settled.precisions
    with pytest.raises(InputError, match="no export is chosen"):
        desk.submit(
            Form(bundle="job:nobody", targets=("onnxruntime",), sizes=("64x64",)).order(), ann
        )
