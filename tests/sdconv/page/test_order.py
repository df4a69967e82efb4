"""Orders as JSON, forms as orders, and what was added to a checkpoint."""

import json
from dataclasses import replace
from typing import Any

import pytest

from converter.errors import InputError
from converter.inspection import inspect
from sdconv.page.addons import (
    Addon,
    edited,
    lcm_advice,
    ordered,
    read_addons,
    with_addon,
    write_addons,
)
from sdconv.page.form import Form, read_precisions, with_precision
from sdconv.page.order import COMPILE, Order
from tests.conftest import SmallModel

FULL = Order(
    checkpoint="a.safetensors",
    parts={"vae": "v.safetensors"},
    controlnets=("c.safetensors", "hf:owner/net"),
    loras=(("l.safetensors", "0.8,unet=1"), ("https://host/l", "1")),
    embeddings=(("e.pt", "toy"),),
    clip_skip=2,
    ema=True,
    targets=("onnxruntime",),
    sizes="64x64",
    precision={"onnxruntime": "unet=f32"},
    emulator_minutes=2.5,
)


def test_an_order_survives_json() -> None:
    assert Order.from_json(json.loads(json.dumps(FULL.to_json()))) == FULL
    assert Order().to_json() == {}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([], "a JSON object"),
        ({"chekpoint": "x"}, "no field 'chekpoint'"),
        ({"checkpoint": 3}, "checkpoint: 3 is not a text"),
        ({"checkpoint": "a\0b"}, "not a text"),
        ({"checkpoint": "x" * 5000}, "not a text"),
        ({"ema": "yes"}, "not true or false"),
        ({"clip_skip": 1.5}, "not a whole number"),
        ({"clip_skip": True}, "not a whole number"),
        ({"loras": [["a", "1", "2"]]}, "not a list of pairs"),
        ({"loras": "ab"}, "not a list of pairs"),
        ({"targets": ["x"] * 101}, "not a list of texts"),
        ({"precision": [1]}, "not an object of texts"),
        ({"emulator_minutes": "10"}, "not a number"),
        ({"emulator_minutes": True}, "not a number"),
        ({"steps": "all"}, "choose one of both, export, compile"),
        ({"format": "gguf"}, "choose one of onnx"),
    ],
)
def test_anything_else_is_refused(data: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Order.from_json(data)


def test_sources_are_listed_once_and_replaced_everywhere() -> None:
    assert FULL.sources() == [
        "a.safetensors", "v.safetensors", "c.safetensors", "hf:owner/net", "l.safetensors",
        "https://host/l", "e.pt",
    ]  # fmt: skip
    changed = FULL.with_sources(str.upper)
    assert changed.sources() == [source.upper() for source in FULL.sources()]
    assert changed.loras[0][1] == "0.8,unet=1"
    assert Order().with_sources(str.upper) == Order()


def test_an_untouched_form_is_the_usual_order() -> None:
    filled = {"model": "a.safetensors", "targets": ["t"], "sizes": ["64x64"], "clip_skip": None}
    order = Form.of(filled).order()
    assert order == Order(checkpoint="a.safetensors", targets=("t",), sizes="64x64")


def test_a_form_says_what_is_not_usual() -> None:
    form = Form(
        model="a",
        clip_skip="2",
        batch="2",
        prediction="epsilon",
        components=("unet",),
        offered="unet vae_decoder",
        targets=("t",),
        sizes=("64x64",),
        more_sizes=" 96x64 ",
        precision=json.dumps({"t": {"unet": "f16"}, "gone": {"unet": "f32"}}),
        minutes=0,
    )
    order = form.order()
    assert (order.clip_skip, order.batch, order.prediction) == (2, 2, "epsilon")
    assert (order.components, order.sizes) == (("unet",), "64x64,96x64")
    assert order.precision == {"t": "unet=f16"}
    assert order.emulator_minutes == 0
    assert replace(form, components=("vae_decoder", "unet")).order().components == ()


def test_the_second_step_alone_names_no_checkpoint() -> None:
    addons = write_addons([Addon("l", "lora", "l")])
    order = Form(model="a", bundle="job:1", addons=addons, profile="p", targets=("t",)).order()
    assert (order.steps, order.bundle) == (COMPILE, "job:1")
    assert (order.checkpoint, order.loras, order.profile) == ("", (), "")


@pytest.mark.parametrize("field", ["addons", "precision"])
@pytest.mark.parametrize("text", ["{", "3", '{"a": 1}', '[{"source": 1}]'])
def test_what_the_browser_keeps_is_read_like_anything_from_outside(field: str, text: str) -> None:
    with pytest.raises(InputError, match="reload the page"):
        Form(**{field: text}).order()  # type: ignore[arg-type]


def test_precisions_are_chosen_one_by_one() -> None:
    text = with_precision(with_precision("", "t", "unet", "f16"), "t", "vae", "f32")
    assert read_precisions(text) == {"t": {"unet": "f16", "vae": "f32"}}
    assert read_precisions(with_precision(text, "t", "unet", "")) == {"t": {"vae": "f32"}}


def test_a_file_is_added_as_what_it_is(small_model: SmallModel) -> None:
    lora = Addon.of("l.safetensors", "l", inspect(small_model.lora))
    assert (lora.kind, lora.family) == ("lora", "sd15")
    assert lora.facts[0] == "LoRA"
    with pytest.raises(InputError, match="a checkpoint file, which cannot be added"):
        Addon.of("c", "c", inspect(small_model.checkpoint))


def test_additions_go_where_they_belong() -> None:
    added: tuple[Addon, ...] = ()
    for source, kind in (("l", "lora"), ("c", "controlnet"), ("v", "vae"), ("w", "vae"),
                         ("e", "textual_inversion"), ("l", "lora")):  # fmt: skip
        added = with_addon(added, Addon(source, kind, source))
    added = edited(edited(added, "scale", 0, "0.5"), "word", 3, "toy")
    order = ordered(Order(checkpoint="a", controlnet_base="b"), added)
    assert order.loras == (("l", "0.5"),)
    assert (order.controlnets, order.controlnet_base) == (("c",), "b")
    assert (order.parts, order.embeddings) == ({"vae": "w"}, (("e", "toy"),))
    assert read_addons(write_addons(added)) == added
    assert [a.source for a in edited(added, "remove", 0, "")] == ["c", "w", "e"]
    without = [addon for addon in added if addon.kind != "controlnet"]
    assert ordered(Order(controlnet_base="b"), without).controlnet_base == ""


@pytest.mark.parametrize(("value", "scale"), [("9", 4), ("-9", -4), ("nan", 1), ("x", 1)])
def test_scales_stay_sane(value: str, scale: float) -> None:
    assert edited([Addon("l", "lora", "l")], "scale", 0, value)[0].scale == scale


def test_an_index_that_is_gone_changes_nothing() -> None:
    added = (Addon("l", "lora", "l"),)
    assert edited(added, "remove", 5, "") == added


def test_an_lcm_lora_says_how_pictures_are_drawn() -> None:
    lcm = Addon("l", "lora", "l", "sd15", ("LCM-LoRA", "64", 3))
    advice = lcm_advice([lcm])
    assert advice is not None
    assert (advice["scheduler"], advice["steps"]) == ("lcm", 4)
    assert lcm_advice([replace(lcm, scale=0)]) is None
