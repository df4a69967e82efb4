"""Whether a set loads as its consumer loads it: made-up files, and the same ones spoilt."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from converter.architecture import Architecture
from converter.bundle import Bundle
from converter.families.controlnet import copied_part
from converter.interface import Interface, Port
from converter.profiles import get_profile
from converter.sizes import Size
from examples.small_models import MODELS, SMALL
from targets.base import Artifact, Conformance
from targets.driver import PortAt
from targets.sophgo.bmodel.reading import read_bmodel
from targets.sophgo.conformance import check_set
from targets.sophgo.consumers import CONSUMERS, links
from targets.sophgo.ports import StagePorts, parse_info, ports_of
from targets.sophgo.toolchain import TpuMlir
from tests.targets.made_sets import Stages, artifacts_of, bundle_of, stages_of, write_bmodel

assert SMALL.unet is not None
SD15 = replace(SMALL, controlnets=(copied_part(SMALL.unet),))


def checked(
    bundle: Bundle, stages: Stages, folder: Path, artifacts: Sequence[Artifact] = ()
) -> dict[str, Conformance]:
    """Write the set, and check it with the reader that is always there."""
    for name, mine in stages.items():
        write_bmodel(folder / f"{name}.bmodel", {name: mine})
    made = check_set(bundle, artifacts or artifacts_of(bundle), folder, TpuMlir(folder / "none"))
    return {file.component: file for file in made}


@pytest.mark.parametrize(
    ("profile", "architecture"),
    [
        ("sd-lcm-tpu", SMALL),
        ("sd-lcm-tpu", SD15),
        ("sd-lcm-tpu", MODELS["bk-sdm-base"]),
        ("sophon-demo", SMALL),
        ("sophon-demo", SD15),
        ("sophon-demo", MODELS["sdxl"]),
    ],
    ids=["sd-lcm-tpu", "its ControlNet", "distilled", "demo", "demo's ControlNet", "demo's SDXL"],
)
def test_what_a_profile_makes_conforms(
    profile: str, architecture: Architecture, tmp_path: Path
) -> None:
    bundle = bundle_of(profile, get_profile(profile).presented(architecture))
    found = checked(bundle, stages_of(bundle, artifacts_of(bundle)), tmp_path)
    assert {name: file.faults for name, file in found.items()} == dict.fromkeys(
        bundle.components, ()
    )
    assert {file.reader for file in found.values()} == {
        "sdconv's own reader, for tpu-mlir 1.30.2 is not installed here"
    }
    assert {file.consumer for file in found.values()} == {profile}


def test_a_profile_without_such_a_consumer_is_not_checked(tmp_path: Path) -> None:
    assert checked(bundle_of("diffusers", SMALL), {}, tmp_path) == {}


Spoil = Callable[[Stages], object]


def swap(component: str, one: int, other: int, side: str = "inputs", stage: int = 0) -> Spoil:
    def spoil(stages: Stages) -> None:
        given = stages[component][stage]
        ports = list(getattr(given, side))
        ports[one], ports[other] = ports[other], ports[one]
        stages[component][stage] = replace(given, **{side: tuple(ports)})

    return spoil


def retype(component: str, place: int, dtype: str, side: str = "inputs") -> Spoil:
    def spoil(stages: Stages) -> None:
        given = stages[component][0]
        ports = list(getattr(given, side))
        ports[place] = replace(ports[place], dtype=dtype)
        stages[component][0] = replace(given, **{side: tuple(ports)})

    return spoil


def drop_port(component: str, side: str) -> Spoil:
    def spoil(stages: Stages) -> None:
        given = stages[component][0]
        stages[component][0] = replace(given, **{side: getattr(given, side)[:-1]})

    return spoil


@pytest.mark.parametrize(
    ("component", "spoil", "line"),
    [
        (
            "unet",
            swap("unet", 1, 2),
            (
                "stage 0 (64x64): input 1 is float32 [1, 77, 64], where the timestep is float32 or "
                "int32 [1]"
            ),
        ),
        (
            "unet",
            swap("unet", 3, 15, stage=1),
            (
                "stage 1 (128x64): input 3 is called down_block_additional_residual_11, and "
                "mid_block_additional_residual was compiled to be there"
            ),
        ),
        (
            "unet",
            swap("unet", 6, 7),
            (
                "stage 0 (64x64): input 6 is float32 [1, 32, 4, 4], where the down residual 2 is "
                "float32 [1, 32, 8, 8]"
            ),
        ),
        (
            "unet",
            swap("unet", 4, 5),
            (
                "stage 0 (64x64): input 4 is called down_block_additional_residual_1, and "
                "down_block_additional_residual_0 was compiled to be there"
            ),
        ),
        (
            "text_encoder",
            retype("text_encoder", 0, "int64"),
            "stage 0 (any size): input 0 is type 99 [1, 77], where the tokens is int32 [1, 77]",
        ),
        (
            "vae_decoder",
            retype("vae_decoder", 0, "bfloat16", "outputs"),
            (
                "stage 0 (64x64): output 0 is bfloat16 [1, 3, 64, 64], where the picture is "
                "float32 [1, 3, 64, 64]"
            ),
        ),
        (
            "unet",
            lambda stages: stages["unet"].pop(),
            "no stage of its first network (unet) takes [1, 4, 8, 16] at input 0, which is 128x64",
        ),
        (
            "vae_encoder",
            lambda stages: stages["vae_encoder"].append(stages["vae_encoder"][0]),
            "stages 0 and 2 both take [1, 3, 64, 64] at input 0, by which stages are told apart",
        ),
        (
            "vae_encoder",
            lambda stages: stages["vae_encoder"].append(stages["vae_decoder"][0]),
            "stage 2 takes [1, 4, 8, 8] at input 0, which no size asked for has",
        ),
        ("unet", drop_port("unet", "inputs"), "stage 0 (64x64): 15 inputs, and 16 are bound"),
        (
            "controlnet",
            drop_port("controlnet", "outputs"),
            "stage 0 (64x64): 12 outputs, and 13 are read",
        ),
        (
            "controlnet",
            swap("controlnet", 0, 12, "outputs"),
            (
                "stage 0 (64x64): output 0 is float32 [1, 128, 1, 1], where the down residual 0 is "
                "float32 [1, 32, 8, 8]"
            ),
        ),
        (
            "controlnet",
            swap("controlnet", 1, 3),
            "stage 0 (64x64): input 1 is float32 [1], where the text is float32 [1, 77, 64]",
        ),
        (
            "controlnet",
            lambda stages: stages["unet"].pop(0),
            "the UNet has no stage for [1, 4, 8, 8] at input 0, and this file has",
        ),
        (
            "controlnet",
            retype("unet", 3, "float16"),
            (
                "output 12 is float32 [1, 128, 1, 1], and input 3 of the UNet, which uses the same "
                "bytes, is float16 [1, 128, 1, 1]"
            ),
        ),
    ],
)
def test_what_would_not_load_is_named(
    component: str, spoil: Spoil, line: str, tmp_path: Path
) -> None:
    bundle = bundle_of("sd-lcm-tpu", SD15)
    stages = stages_of(bundle, artifacts_of(bundle))
    spoil(stages)
    assert line in checked(bundle, stages, tmp_path)[component].faults


def test_controlnet_and_unet_of_different_batch_do_not_share_bytes(tmp_path: Path) -> None:
    bundle = bundle_of("sd-lcm-tpu", SD15)
    artifacts = [replace(a, batch=2) if a.component == "unet" else a for a in artifacts_of(bundle)]
    found = checked(bundle, stages_of(bundle, artifacts), tmp_path, artifacts)
    assert found["unet"].faults == ()
    assert found["controlnet"].faults[0] == (
        "the UNet has no stage for [1, 4, 8, 8] at input 0, and this file has"
    )


def test_a_file_of_the_other_consumer_does_not_conform(tmp_path: Path) -> None:
    theirs = bundle_of("sophon-demo", SD15)
    ours = replace(bundle_of("sd-lcm-tpu", SD15), batch=2)
    found = checked(ours, stages_of(theirs, artifacts_of(theirs)), tmp_path)
    assert found["unet"].faults == ()
    assert (
        "stage 0 (64x64): input 1 is float32 [1], where the text is float32 [2, 77, 64]"
        in found["controlnet"].faults
    )


def test_only_the_first_network_is_looked_at(tmp_path: Path) -> None:
    bundle = bundle_of("sd-lcm-tpu", SMALL)
    artifacts = [a for a in artifacts_of(bundle) if a.component == "unet"]
    (stages,) = stages_of(bundle, artifacts).values()
    networks = {"unet": stages[:1], "unet 2": stages[1:]}
    write_bmodel(tmp_path / "unet.bmodel", networks)
    (file,) = check_set(bundle, artifacts, tmp_path, TpuMlir(tmp_path / "none"))
    assert file.faults == (
        "no stage of its first network (unet) takes [1, 4, 8, 16] at input 0, which is 128x64",
    )


def test_an_inpaint_unet_has_nobody_to_feed_it(tmp_path: Path) -> None:
    bundle = bundle_of("sd-lcm-tpu", MODELS["sd15-inpaint"])
    found = checked(bundle, stages_of(bundle, artifacts_of(bundle)), tmp_path)
    assert (
        "stage 0 takes [1, 9, 8, 8] at input 0, which no size asked for has" in found["unet"].faults
    )


def test_a_file_that_cannot_be_read_does_not_conform(tmp_path: Path) -> None:
    bundle = bundle_of("sd-lcm-tpu", SMALL)
    artifacts = artifacts_of(bundle)[:1]
    (tmp_path / artifacts[0].path).write_bytes(b"no bmodel")
    (file,) = check_set(bundle, artifacts, tmp_path, TpuMlir(tmp_path / "none"))
    assert "not a bmodel" in file.faults[0]
    write_bmodel(tmp_path / artifacts[0].path, {})
    (file,) = check_set(bundle, artifacts, tmp_path, TpuMlir(tmp_path / "none"))
    assert "finds no network in it: compile it again" in file.faults[0]


def test_the_aliases_are_those_of_the_original_host() -> None:
    # Its table maps (side, place) of the UNet to (side, place) of the ControlNet, side 0 an input:
    # cn in0 -> unet in0, in1 -> in2, in3 -> in1, out0..11 -> in4..15, out12 -> in3.
    table = CONSUMERS["sd-lcm-tpu"]
    expected = {("input", 0, 0), ("input", 1, 2), ("input", 3, 1), ("output", 12, 3)}
    expected |= {("output", i, i + 4) for i in range(12)}
    assert set(links(table("controlnet", SD15), table("unet", SD15))) == expected


def test_the_table_of_full_size_sd15_is_the_documented_one() -> None:
    inputs, outputs = CONSUMERS["sd-lcm-tpu"]("unet", MODELS["sd15-full"])
    ports = Interface(tuple(Port(str(i), "", slot.shape) for i, slot in enumerate(inputs)), ())
    assert list(ports.input_shapes(1, Size(768, 512)).values()) == [
        (1, 4, 64, 96), (1,), (1, 77, 768), (1, 1280, 8, 12),
        *[(1, 320, 64, 96)] * 3, (1, 320, 32, 48), *[(1, 640, 32, 48)] * 2, (1, 640, 16, 24),
        *[(1, 1280, 16, 24)] * 2, *[(1, 1280, 8, 12)] * 3,
    ]  # fmt: skip
    assert [slot.role for slot in outputs] == ["sample"]


INFO = """\
bmodel version: B.2.2+v1.30.2-20260831
chip: BM1684X

kernel_module name: kernel.so
==========================================
net 0: [unet]  static
------------
stage 0, core num: 1
input: sample, [1, 4, 8, 8], float32, scale: 1, zero_point: 0
input: a, [b], [1, 77], int32, scale: 1, zero_point: 0
output: noise, [1, 4, 8, 8], float32, scale: 1, zero_point: 0
------------
stage 1, core num: 1
input: sample, [1], bfloat16, scale: 1, zero_point: 0
==========================================
net 1: [vae]  static
------------
stage 0, core num: 1
input: sample, [1, 4, 8, 8], unkown, scale: 1, zero_point: 0

device mem size: 79936 (weight: 12288, instruct: 2112, runtime: 65536)
"""
"""As model_tool 1.30.2 wrote it, but for lines that tell nothing here."""


def test_the_output_of_model_tool() -> None:
    networks = parse_info(INFO)
    latent = PortAt("sample", "float32", (1, 4, 8, 8))
    assert networks["unet"] == [
        StagePorts((latent, PortAt("a, [b]", "int32", (1, 77))), (replace(latent, name="noise"),)),
        StagePorts((PortAt("sample", "bfloat16", (1,)),), ()),
    ]
    assert networks["vae"] == [StagePorts((replace(latent, dtype="unkown"),), ())]
    assert parse_info("nothing") == {}


def test_the_vendors_tool_and_our_reader_see_the_same(tpu_mlir: TpuMlir, tmp_path: Path) -> None:
    bundle = bundle_of("sd-lcm-tpu", SD15)
    for name, stages in stages_of(bundle, artifacts_of(bundle)).items():
        path = tmp_path / f"{name}.bmodel"
        write_bmodel(path, {name: stages})
        assert parse_info(tpu_mlir.describe(path)) == ports_of(read_bmodel(path).model)
    found = check_set(bundle, artifacts_of(bundle), tmp_path, tpu_mlir)
    assert {file.reader for file in found} == {"model_tool of tpu-mlir 1.30.2"}
    assert not any(file.faults for file in found)
