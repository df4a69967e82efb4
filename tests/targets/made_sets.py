"""Sets of bmodels with any ports, of made-up instructions and weights."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from converter.architecture import Architecture
from converter.bundle import Bundle, BundleComponent
from converter.components import available
from converter.profiles import get_profile
from converter.sizes import Size
from targets.base import Artifact
from targets.driver import PortAt
from targets.sophgo.bmodel.reading import read_bmodel
from targets.sophgo.bmodel.schema import Net, NetParameter, Shape, Tensor
from targets.sophgo.bmodel.writing import header_of
from targets.sophgo.ports import DTYPES, StagePorts
from tests.targets.bmodel.small import small_bmodel

SIZES = (Size(64, 64), Size(128, 64))

Stages = dict[str, list[StagePorts]]


def bundle_of(profile: str, architecture: Architecture) -> Bundle:
    """A bundle as far as its ports go."""
    components = {
        name: BundleComponent(
            name=name,
            graph="",
            weights="",
            interface=get_profile(profile).interface(name, architecture),
            graph_sha256="",
            weights_key="",
            weights_bytes=0,
            parameters=0,
            template_key="",
        )
        for name in available(architecture)
    }
    batch = get_profile(profile).batch
    return Bundle(
        Path(), architecture.family, architecture.to_json(), profile, batch, "epsilon", components
    )


def artifacts_of(bundle: Bundle) -> list[Artifact]:
    sized = [
        (name, size)
        for name, component in bundle.components.items()
        for size in (SIZES if component.interface.has_size else (None,))
    ]
    batches = {"unet": bundle.batch, "controlnet": bundle.batch}
    return [
        Artifact(
            component=name,
            target="bm1684x",
            chip="bm1684x",
            size=size,
            batch=batches.get(name, 1),
            precision="f16",
            path=f"{name}.bmodel",
            files=(),
            blake3="",
            key="",
            weights_key="",
            reused=False,
            why="",
            how="bound",
            predicted_ms=None,
        )
        for name, size in sized
    ]


def stages_of(bundle: Bundle, artifacts: Sequence[Artifact]) -> Stages:
    """What the files should hold."""
    stages: Stages = {}
    for artifact in artifacts:
        interface = bundle.components[artifact.component].interface
        stage = StagePorts(
            *(
                tuple(PortAt(p.name, p.dtype, p.at(artifact.batch, artifact.size)) for p in ports)
                for ports in (interface.inputs, interface.outputs)
            )
        )
        stages.setdefault(artifact.component, []).append(stage)
    return stages


def write_bmodel(path: Path, networks: dict[str, list[StagePorts]]) -> None:
    """A bmodel with these ports; its instructions and weights are another's."""
    path.write_bytes(small_bmodel("any"))
    given = read_bmodel(path)
    like = given.model.net[0].parameter[0]
    nets = tuple(
        Net(name, tuple(_stage(like, stage) for stage in stages))
        for name, stages in networks.items()
    )
    content = path.read_bytes()[len(given.header) :]
    path.write_bytes(header_of(replace(given.model, net=nets), given.binary_size) + content)


def _stage(like: NetParameter, ports: StagePorts) -> NetParameter:
    return replace(
        like,
        input_tensor=tuple(map(_tensor, ports.inputs)),
        output_tensor=tuple(map(_tensor, ports.outputs)),
    )


def _tensor(port: PortAt) -> Tensor:
    code = DTYPES.index(port.dtype) if port.dtype in DTYPES else 99
    return Tensor(port.name, data_type=code, shape=(Shape(port.shape),))
