"""Export as a user meets it: what is written, reused, refused, and left after an interruption."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy

from converter.adapters.choice import AdapterChoice
from converter.bundle import Bundle
from converter.errors import InputError
from converter.export import ExportRequest, export
from converter.progress import Event
from converter.stream import write_weights
from examples.random_checkpoint import write_checkpoint
from examples.small_models import MODELS
from tests.conftest import SmallModel


def notes(request: ExportRequest) -> list[str]:
    seen: list[Event] = []
    export(request, seen.append)
    return [event.note for event in seen if event.note]


def contents(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_bundle_is_graphs_with_symbolic_sizes_and_one_weight_file_each(
    small_model: SmallModel, tmp_path: Path
) -> None:
    folder = export(ExportRequest(small_model.checkpoint, tmp_path)).folder
    assert contents(folder) == sorted(
        ["bundle.json"]
        + [
            f"{component}/{name}"
            for component in ("text_encoder", "unet", "vae_encoder", "vae_decoder")
            for name in ("model.onnx", "model.onnx.data")
        ]
    )
    graph = onnx.load(folder / "unet/model.onnx", load_external_data=False).graph
    sample = graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in sample] == ["batch", 4, "height/8", "width/8"]
    assert len(graph.input) == 16
    onnx.checker.check_model(str(folder / "unet/model.onnx"))


def test_ports_follow_the_profile(small_bundle: Bundle, diffusers_bundle: Bundle) -> None:
    tpu, hub = small_bundle.components, diffusers_bundle.components
    assert [p.name for p in tpu["text_encoder"].interface.inputs] == ["tokens"]
    assert tpu["text_encoder"].interface.inputs[0].dtype == "int32"
    assert len(tpu["text_encoder"].interface.outputs) == 1
    assert [p.name for p in hub["unet"].interface.inputs] == [
        "sample", "timestep", "encoder_hidden_states",
    ]  # fmt: skip
    assert [p.name for p in hub["text_encoder"].interface.outputs] == [
        "last_hidden_state", "pooler_output",
    ]  # fmt: skip
    for bundle in (small_bundle, diffusers_bundle):
        for component in bundle.components.values():
            session = onnxruntime.InferenceSession(bundle.folder / component.graph)
            names = [(i.name, i.type) for i in session.get_inputs()]
            types = {"float32": "tensor(float)", "int32": "tensor(int32)", "int64": "tensor(int64)"}
            assert names == [(p.name, types[p.dtype]) for p in component.interface.inputs]
            outputs = [o.name for o in session.get_outputs()]
            assert outputs == [p.name for p in component.interface.outputs]


def test_a_second_export_reuses_everything_and_another_scale_only_what_it_changes(
    small_model: SmallModel, tmp_path: Path
) -> None:
    def request(scale: float) -> ExportRequest:
        return ExportRequest(
            small_model.checkpoint, tmp_path, (AdapterChoice(small_model.lora, scale),)
        )

    export(request(0.5))
    before = {p: (tmp_path / p).stat().st_mtime_ns for p in contents(tmp_path)}
    assert sum("reused" in note for note in notes(request(0.5))) == 4
    assert [n.split(":")[0] for n in notes(request(0.6))] == ["vae_encoder", "vae_decoder"]
    changed = {p for p in before if (tmp_path / p).stat().st_mtime_ns != before[p]}
    assert changed == {"bundle.json"} | {
        f"{c}/{n}" for c in ("unet", "text_encoder") for n in ("model.onnx", "model.onnx.data")
    }


def test_scale_zero_is_the_base_bit_for_bit(small_model: SmallModel, tmp_path: Path) -> None:
    base = export(ExportRequest(small_model.checkpoint, tmp_path / "base"))
    zero = ExportRequest(
        small_model.checkpoint, tmp_path / "zero", (AdapterChoice(small_model.lora, 0.0),)
    )
    for name, component in export(zero).components.items():
        assert component.weights_key == base.components[name].weights_key
        files = [tmp_path / which / component.weights for which in ("base", "zero")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_an_interrupted_export_leaves_no_half_file_and_goes_on(
    small_model: SmallModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ExportRequest(small_model.checkpoint, tmp_path)

    def killed(*arguments: object) -> None:
        if "vae_encoder" in str(arguments[2]):
            raise KeyboardInterrupt
        write_weights(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("converter.export.write_weights", killed)
    with pytest.raises(KeyboardInterrupt):
        export(request)
    assert not [p for p in contents(tmp_path) if "partial" in p or "vae" in p]
    with pytest.raises(InputError, match="interrupted"):
        Bundle.load(tmp_path)
    monkeypatch.undo()
    assert [n.split(":")[0] for n in notes(request)] == ["text_encoder", "unet"]
    Bundle.load(tmp_path)


def test_a_damaged_weight_file_is_noticed(small_model: SmallModel, tmp_path: Path) -> None:
    export(ExportRequest(small_model.checkpoint, tmp_path))
    with (tmp_path / "unet/model.onnx.data").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(InputError, match="export again"):
        Bundle.load(tmp_path)
    assert "unet" not in " ".join(notes(ExportRequest(small_model.checkpoint, tmp_path)))
    Bundle.load(tmp_path)


def test_files_of_the_user_in_the_output_folder_are_left_alone(
    small_model: SmallModel, tmp_path: Path
) -> None:
    mine = tmp_path / "unet" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    export(ExportRequest(small_model.checkpoint, tmp_path))
    assert mine.read_text() == "mine"


def refused(request: ExportRequest, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        export(request)
    assert "\n" not in str(caught.value)
    assert not request.output.exists()


def test_bad_requests_are_refused_and_nothing_is_written(
    small_model: SmallModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, lora, out = small_model.checkpoint, small_model.lora, tmp_path / "out"
    refused(ExportRequest(lora, out), "lora file, and -u wants a checkpoint.*with -l")
    refused(ExportRequest(model, out, (AdapterChoice(model),)), "a LoRA was expected.*with -u")
    refused(ExportRequest(model, out, profile="nope"), "sd-lcm-tpu, sophon-demo, diffusers")
    refused(ExportRequest(model, out, batch=0), "at least 1")
    refused(ExportRequest(model, out, prediction="x"), "choose epsilon or v_prediction")
    refused(ExportRequest(model, out, components=("unet", "x")), "unknown component 'x'")
    refused(ExportRequest(tmp_path / "missing", out), "cannot be read")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    refused(ExportRequest(model, out), "make room")


def without(model: Path, prefix: str, path: Path) -> Path:
    tensors = safetensors.numpy.load_file(model)
    kept = {name: t for name, t in tensors.items() if not name.startswith(prefix)}
    safetensors.numpy.save_file(kept, path)
    return path


@pytest.mark.parametrize(
    ("prefix", "missing", "rest"),
    [
        ("cond_stage_model.", "text_encoder", "unet,vae_encoder,vae_decoder"),
        ("first_stage_model.", "vae_encoder and no vae_decoder", "text_encoder,unet"),
    ],
)
def test_a_checkpoint_that_lacks_a_part_says_what_can_still_be_exported(
    small_model: SmallModel, tmp_path: Path, prefix: str, missing: str, rest: str
) -> None:
    partial = without(small_model.checkpoint, prefix, tmp_path / "partial.safetensors")
    out = tmp_path / "out"
    refused(ExportRequest(partial, out), f"no {missing} in this file.*--components {rest}")
    bundle = export(ExportRequest(partial, out, components=tuple(rest.split(","))))
    assert sorted(bundle.components) == sorted(rest.split(","))


def test_a_lora_whose_keys_do_not_fit_is_refused_unless_allowed(
    small_model: SmallModel, tmp_path: Path
) -> None:
    tensors = safetensors.numpy.load_file(small_model.lora)
    tensors["lora_unet_nowhere.lora_down.weight"] = np.zeros((4, 8), np.float16)
    odd = tmp_path / "odd.safetensors"
    safetensors.numpy.save_file(tensors, odd)
    request = ExportRequest(small_model.checkpoint, tmp_path / "out", (AdapterChoice(odd),))
    refused(request, "1 of 613 keys do not fit.*lora_unet_nowhere.*--allow-unused")
    allowed = ExportRequest(
        small_model.checkpoint, tmp_path / "out", (AdapterChoice(odd),), allow_unused=True
    )
    ledger = export(allowed).adapters[0]["ledger"]
    assert ledger["unused"] == {
        "no such module in this checkpoint": ["lora_unet_nowhere.lora_down.weight"]
    }


def test_a_prediction_is_recorded_and_asks_for_no_new_weights(
    small_model: SmallModel, tmp_path: Path
) -> None:
    plain = ExportRequest(small_model.checkpoint, tmp_path)
    bundle = export(plain)
    assert (bundle.prediction_type, bundle.zero_terminal_snr) == ("epsilon", False)
    stated = replace(plain, prediction="v_prediction", zero_terminal_snr=True)
    assert sum("reused" in note for note in notes(stated)) == 4
    bundle = Bundle.load(tmp_path)
    assert (bundle.prediction_type, bundle.zero_terminal_snr) == ("v_prediction", True)
    assert bundle.command[-3:] == ["--prediction", "v_prediction", "--zero-terminal-snr"]


def test_other_families_are_not_for_the_hosts_of_sd15(tmp_path: Path) -> None:
    for name, reason in (
        ("sdxl", "is for sd15 only .* this is sdxl: add --profile diffusers"),
        ("bk-sdm-tiny", "has no middle block: add --profile diffusers"),
        ("sd15-lcm", "is a full LCM: add --profile diffusers"),
    ):
        path = tmp_path / f"{name}.safetensors"
        write_checkpoint(path, MODELS[name])
        refused(ExportRequest(path, tmp_path / "out"), reason)


def test_adapters_are_named_with_a_scale_or_without(tmp_path: Path) -> None:
    assert AdapterChoice.parse("a.safetensors") == AdapterChoice(Path("a.safetensors"), 1.0)
    assert AdapterChoice.parse("a.safetensors:0.8") == AdapterChoice(Path("a.safetensors"), 0.8)
    with pytest.raises(InputError, match="no number"):
        AdapterChoice.parse("a.safetensors:much")
    odd = tmp_path / "b:1"
    odd.touch()
    assert AdapterChoice.parse(str(odd)) == AdapterChoice(odd, 1.0)


def test_what_was_fetched_is_recorded_with_its_address(
    small_model: SmallModel, tmp_path: Path
) -> None:
    addresses = {
        small_model.checkpoint: "https://host/a.safetensors#sha256=" + "ab" * 32,
        small_model.lora: "hf:owner/name/lora.safetensors",
    }
    request = ExportRequest(
        small_model.checkpoint,
        tmp_path,
        (AdapterChoice(small_model.lora, 0.5),),
        components=("text_encoder",),
        addresses=addresses,
    )
    bundle = export(request)
    assert [s["address"] for s in bundle.sources] == [addresses[small_model.checkpoint]]
    words = list(bundle.command)
    assert words[words.index("-u") + 1] == addresses[small_model.checkpoint]
    assert words[words.index("-l") + 1] == addresses[small_model.lora] + ":0.5"
    assert request.address_of(small_model.checkpoint.parent / "other") is None
    folder = replace(request, addresses={small_model.checkpoint.parent: "hf:owner/name"})
    assert folder.address_of(small_model.checkpoint) == "hf:owner/name"
    plain = export(replace(request, addresses={}))
    assert "address" not in plain.sources[0]
