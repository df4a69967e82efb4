"""ControlNets against diffusers: weights, residuals, the UNet that takes them, and merging."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch

from converter.bundle import Bundle
from converter.errors import InputError
from converter.export import ExportRequest, export
from converter.inspection import inspect, inspect_model
from converter.model_files import ModelFiles
from converter.profiles import get_profile
from converter.sizes import Size
from converter.source import open_source
from converter.weights import Array
from examples.random_checkpoint import write_checkpoint, write_controlnet, write_lora
from examples.small_models import MODELS, SMALL
from tests.converter import reference_models as references

SIZES = {"sd15": (Size(64, 64), Size(64, 128)), "sdxl": (Size(64, 64), Size(96, 32))}
NEAR = 1e-4
UNET, CONTROL = "model.diffusion_model.", "control_model."

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Files:
    """A checkpoint and a ControlNet for it in the original layout, and what is in the latter."""

    name: str
    checkpoint: Path
    controlnet: Path

    @property
    def state(self) -> State:
        state: State = safetensors.torch.load_file(self.controlnet)
        return state

    @property
    def module(self) -> Any:
        return references.controlnet(self.name, self.state)


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return small_files(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return small_files("sd15", tmp_path_factory.mktemp("sd15"))


def small_files(name: str, folder: Path) -> Files:
    made = Files(name, folder / "model.safetensors", folder / "controlnet.safetensors")
    write_checkpoint(made.checkpoint, MODELS[name])
    unet = MODELS[name].unet
    assert unet is not None
    write_controlnet(made.controlnet, unet, seed=5)
    return made


@pytest.fixture(scope="module")
def bundle(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(
        ExportRequest(
            files.checkpoint,
            tmp_path_factory.mktemp("bundle"),
            profile="diffusers",
            components=("controlnet", "unet"),
            parts={"controlnet": files.controlnet},
        )
    )


def run(bundle: Bundle, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
    record = bundle.components[component]
    session = onnxruntime.InferenceSession(bundle.folder / record.graph)
    names = [port.name for port in record.interface.outputs]
    return dict(zip(names, session.run(None, dict(inputs)), strict=True))


def denoiser_inputs(files: Files, size: Size) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Inputs by port, and diffusers' keyword for what SDXL takes besides."""
    arch = MODELS[files.name].unet
    assert arch is not None
    noise = torch.Generator().manual_seed(size.width)
    inputs = {
        "sample": torch.randn(2, 4, size.height // 8, size.width // 8, generator=noise),
        "timestep": torch.tensor([501.0]),
        "encoder_hidden_states": torch.randn(2, 77, arch.context_dim, generator=noise),
    }
    if not arch.addition_dim:
        return inputs, {}
    added = {
        "text_embeds": torch.randn(2, arch.pooled_dim, generator=noise),
        "time_ids": torch.randint(0, 1024, (2, arch.time_ids), generator=noise).float(),
    }
    return inputs | added, {"added_cond_kwargs": added}


def test_every_tensor_is_the_one_that_diffusers_takes(files: Files) -> None:
    state = files.module.state_dict()
    model = ModelFiles(files.checkpoint, {"controlnet": files.controlnet})
    source = open_source(model, get_profile("diffusers"), None)
    found = source.model.file
    table = source.tables["controlnet"]
    assert {rule.name for rule in table} == state.keys()
    for rule in table:
        mine = rule.take(found.read(rule.source)).astype(np.float32)
        assert np.array_equal(mine, state[rule.name].numpy()), rule.name


@pytest.mark.slow
def test_it_computes_what_diffusers_computes_and_so_does_the_unet(
    files: Files, bundle: Bundle
) -> None:
    net = files.module
    unet = references.unet(files.name, safetensors.torch.load_file(files.checkpoint))
    for size in SIZES[files.name]:
        inputs, added = denoiser_inputs(files, size)
        main = [inputs[name] for name in ("sample", "timestep", "encoder_hidden_states")]
        hint = torch.rand(2, 3, size.height, size.width)
        given = {name: tensor.numpy() for name, tensor in inputs.items()}
        with torch.inference_mode():
            down, middle = net(*main, hint, return_dict=False, **added)
            wanted = unet(
                *main,
                mid_block_additional_residual=middle,
                down_block_additional_residuals=down,
                **added,
            ).sample
            without = unet(*main, **added).sample
        residuals = run(bundle, "controlnet", {**given, "controlnet_cond": hint.numpy()})
        for mine, tensor in zip(residuals.values(), [*down, middle], strict=True):
            assert mine.shape == tuple(tensor.shape)
            assert tensor.std() > 0.01
            assert np.abs(mine - tensor.numpy()).max() <= NEAR
        # The outputs have the names of the ports that they go to.
        found = run(bundle, "unet", {**given, **residuals})["out_sample"]
        assert np.abs(found - wanted.numpy()).max() <= NEAR
        assert (wanted - without).abs().max() > 100 * NEAR


def exported_weights(checkpoint: Path, controlnet: Path, folder: Path) -> bytes:
    request = ExportRequest(
        checkpoint, folder, components=("controlnet",), parts={"controlnet": controlnet},
        profile="diffusers",
    )  # fmt: skip
    bundle = export(request)
    return (bundle.folder / bundle.components["controlnet"].weights).read_bytes()


def test_every_spelling_exports_to_the_same_bytes(files: Files, tmp_path: Path) -> None:
    wanted = exported_weights(files.checkpoint, files.controlnet, tmp_path / "original")
    bare = {name.removeprefix(CONTROL): tensor for name, tensor in files.state.items()}
    safetensors.torch.save_file(bare, tmp_path / "bare.safetensors")
    torch.save({"state_dict": dict(files.state)}, tmp_path / "pickled.pth")
    files.module.save_pretrained(tmp_path / "folder")
    weights = tmp_path / "folder" / "diffusion_pytorch_model.safetensors"
    for path in ("bare.safetensors", "pickled.pth", "folder", weights):
        assert exported_weights(files.checkpoint, tmp_path / path, tmp_path / "out") == wanted


def test_several_stand_beside_each_other(sd15: Files, tmp_path: Path) -> None:
    unet = SMALL.unet
    assert unet is not None
    write_controlnet(tmp_path / "second.safetensors", unet, seed=6, prefix="")
    parts = {"controlnet": sd15.controlnet, "controlnet_2": tmp_path / "second.safetensors"}
    request = ExportRequest(
        sd15.checkpoint, tmp_path / "two", parts=parts, components=("controlnet", "controlnet_2")
    )
    bundle = export(request)
    assert list(bundle.components) == ["controlnet", "controlnet_2"]
    assert {s["path"]: s["role"] for s in bundle.sources} == {
        str(path): part for part, path in parts.items()
    }
    first, second = (bundle.weights(c).read("controlnet_mid_block.weight") for c in parts)
    assert not np.array_equal(first, second)
    wanted = safetensors.torch.load_file(parts["controlnet_2"])["middle_block_out.0.weight"]
    assert np.array_equal(second, wanted.float().numpy())
    words = bundle.command
    assert [words[i + 1] for i, word in enumerate(words) if word == "--controlnet"] == [
        str(path) for path in parts.values()
    ]


def carried(controlnet: State, base: State, this: State) -> dict[str, Array]:
    """ControlNet - base UNet + this UNet in float64; what no UNet has stays as it is."""
    expected = {}
    for name, tensor in controlnet.items():
        copied, value = UNET + name.removeprefix(CONTROL), tensor.double()
        if copied in base:
            value = value - base[copied].double() + this[copied].double()
        expected[name] = value.numpy()
    return expected


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another SD1.5 checkpoint than the one that the ControlNet was trained beside."""
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    write_checkpoint(path, SMALL, seed=9)
    return path


def read_all(files: ModelFiles) -> dict[str, Array]:
    """The tensors of the ControlNet as an export reads them, under their original names."""
    file = files.open().file
    home = "controlnet."
    return {
        CONTROL + name.removeprefix(home): file.read(name).astype(np.float64)
        for name in file.tensors
        if name.startswith(home)
    }


def test_carried_over_it_is_itself_less_its_base_and_with_this_checkpoint(
    sd15: Files, other: Path, tmp_path: Path
) -> None:
    base, this = (safetensors.torch.load_file(path) for path in (sd15.checkpoint, other))
    expected = carried(sd15.state, base, this)
    nets = {"controlnet": sd15.controlnet}
    found = read_all(ModelFiles(other, nets, controlnet_base=sd15.checkpoint))
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        assert np.array_equal(found[name], wanted), name
    plain = read_all(ModelFiles(other, nets))
    changed = [name for name in plain if not np.array_equal(plain[name], found[name])]
    assert all(UNET + name.removeprefix(CONTROL) in base for name in changed)
    assert len(changed) > 100
    # A file of the difference alone says so, and needs no base.
    difference = {
        name: tensor - base.get(UNET + name.removeprefix(CONTROL), torch.zeros(())).float()
        for name, tensor in sd15.state.items()
    }
    path = tmp_path / "difference.safetensors"
    safetensors.torch.save_file({**difference, "difference": torch.zeros(0)}, path)
    again = read_all(ModelFiles(other, {"controlnet": path}))
    for name, wanted in expected.items():
        assert np.abs(again[name] - wanted).max() <= 1e-6 * np.abs(wanted).max(), name


def test_a_carried_over_controlnet_depends_on_all_three_files(
    sd15: Files, other: Path, tmp_path: Path
) -> None:
    request = ExportRequest(
        other, tmp_path / "out", components=("controlnet",),
        parts={"controlnet": sd15.controlnet}, controlnet_base=sd15.checkpoint,
    )  # fmt: skip
    bundle = export(request)
    assert {s["role"]: s["path"] for s in bundle.sources} == {
        "checkpoint": str(other),
        "controlnet": str(sd15.controlnet),
        "controlnet base": str(sd15.checkpoint),
    }
    words = bundle.command
    assert words[words.index("--controlnet-merge") + 1] == str(sd15.checkpoint)
    plain = export(replace(request, controlnet_base=None))
    keys = [b.components["controlnet"].weights_key for b in (bundle, plain)]
    assert keys[0] != keys[1]


def test_inspect_tells_a_controlnet(files: Files) -> None:
    found = inspect(files.controlnet)
    assert (found.kind, found.family, found.problems) == ("controlnet", files.name, [])
    assert list(found.components) == ["controlnet"]
    assert found.missing == {}
    assert found.components["controlnet"].parameters == sum(t.numel() for t in files.state.values())


def test_a_checkpoint_with_a_controlnet_beside_it_is_a_checkpoint(sd15: Files) -> None:
    model = ModelFiles(sd15.checkpoint, {"controlnet": sd15.controlnet}).open()
    found = inspect_model(model)
    assert (found.kind, found.missing) == ("checkpoint", {})
    assert list(found.components)[1] == "controlnet"


def test_the_consumers_order_is_kept(sd15: Files, tmp_path: Path) -> None:
    parts = {"controlnet": sd15.controlnet}
    bundle = export(
        ExportRequest(sd15.checkpoint, tmp_path, components=("controlnet",), parts=parts)
    )
    ports = bundle.components["controlnet"].interface
    names = ["sample", "encoder_hidden_states", "image", "timestep"]
    assert [port.name for port in ports.inputs] == names
    assert ports.inputs[2].shape == ("batch", 3, "height", "width")
    assert [port.shape[1:] for port in ports.outputs][-1] == (128, "height/64", "width/64")
    inputs, _ = denoiser_inputs(sd15, Size(64, 64))
    hint = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        down, middle = sd15.module(*inputs.values(), hint, return_dict=False)
    given = {**{n: t.numpy() for n, t in inputs.items()}, "image": hint.numpy()}
    found = run(bundle, "controlnet", given)
    for mine, tensor in zip(found.values(), [*down, middle], strict=True):
        assert np.abs(mine - tensor.numpy()).max() <= NEAR


Change = Callable[[Files, Path], ExportRequest]


def sdxl_net(sd15: Files, folder: Path) -> ExportRequest:
    unet = MODELS["sdxl"].unet
    assert unet is not None
    write_controlnet(folder / "net", unet)
    return ExportRequest(sd15.checkpoint, folder / "out", parts={"controlnet": folder / "net"})


def net_of_a_wider_unet(sd15: Files, folder: Path) -> ExportRequest:
    assert SMALL.unet is not None
    wider = replace(SMALL.unet, block_channels=(32, 64, 96, 160))
    write_controlnet(folder / "net", wider)
    return ExportRequest(sd15.checkpoint, folder / "out", parts={"controlnet": folder / "net"})


def lora(sd15: Files, folder: Path) -> ExportRequest:
    write_lora(folder / "net", SMALL)
    return ExportRequest(sd15.checkpoint, folder / "out", parts={"controlnet": folder / "net"})


def net_as_checkpoint(sd15: Files, folder: Path) -> ExportRequest:
    return ExportRequest(sd15.controlnet, folder / "out")


def nothing_to_carry(sd15: Files, folder: Path) -> ExportRequest:
    return ExportRequest(sd15.checkpoint, folder / "out", controlnet_base=sd15.checkpoint)


def base_without_unet(sd15: Files, folder: Path) -> ExportRequest:
    return ExportRequest(
        sd15.checkpoint, folder / "out",
        parts={"controlnet": sd15.controlnet}, controlnet_base=sd15.controlnet,
    )  # fmt: skip


def difference_twice(sd15: Files, folder: Path) -> ExportRequest:
    safetensors.torch.save_file({**sd15.state, "difference": torch.zeros(0)}, folder / "net")
    return ExportRequest(
        sd15.checkpoint, folder / "out",
        parts={"controlnet": folder / "net"}, controlnet_base=sd15.checkpoint,
    )  # fmt: skip


def marked(*markers: str) -> Change:
    def change(sd15: Files, folder: Path) -> ExportRequest:
        extra = {marker: torch.zeros(1) for marker in markers}
        safetensors.torch.save_file({**sd15.state, **extra}, folder / "net")
        return ExportRequest(sd15.checkpoint, folder / "out", parts={"controlnet": folder / "net"})

    return change


def without_a_middle(sd15: Files, folder: Path) -> ExportRequest:
    write_checkpoint(folder / "model", MODELS["bk-sdm-tiny"])
    unet = MODELS["bk-sdm-tiny"].unet
    assert unet is not None
    write_controlnet(folder / "net", replace(unet, middle_depth=1))
    return ExportRequest(
        folder / "model", folder / "out", profile="diffusers", parts={"controlnet": folder / "net"}
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (sdxl_net, "a ControlNet for sdxl, and the checkpoint is sd15: use one trained for sd15"),
        (net_of_a_wider_unet, "12 residuals of up to 160 channels, where .* 12 of up to 128"),
        (lora, "no controlnet in it.*give a file that holds one with --controlnet"),
        (net_as_checkpoint, "no text_encoder and no unet.* it holds controlnet"),
        (nothing_to_carry, "no ControlNet to carry over: name one with --controlnet"),
        (base_without_unet, "no model.diffusion_model.* give a whole checkpoint"),
        (difference_twice, "stored as a difference .* leave --controlnet-merge out"),
        (marked("lora_controlnet"), "a control-LoRA .* use a ControlNet of its own"),
        (marked("task_embedding"), "a union of ControlNets .* use a ControlNet of its own"),
        (marked("control_model.new.weight"), "belongs to no known layer"),
        (without_a_middle, "this UNet has no middle block: leave --controlnet out"),
    ],
)
def test_what_does_not_fit_is_refused(
    sd15: Files, tmp_path: Path, change: Change, message: str
) -> None:
    request = change(sd15, tmp_path)
    with pytest.raises(InputError, match=message):
        export(request)
    assert not request.output.exists()
