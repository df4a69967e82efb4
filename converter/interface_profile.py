"""What an interface profile says of its consumer; `converter.profiles` has them as data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from converter.architecture import Architecture
from converter.components import (
    ADDED,
    COMPONENTS,
    END_STATE,
    LAST_STATE,
    PENULTIMATE_STATE,
    TIME,
    embedded_interface,
    interface,
    size_multiple,
)
from converter.errors import InputError
from converter.families.controlnet import is_controlnet, kind_of
from converter.interface import Interface, Port
from converter.sizes import Size, check_size


@dataclass(frozen=True)
class ComponentProfile:
    """How one consumer names a component's ports.

    `inputs` maps canonical input names to the consumer's; inputs not listed keep theirs. `order`
    gives the canonical names in the consumer's order (None: as they are).
    `outputs` does so for the outputs kept, in order (None: all, as they are); those that a family
    lacks are left out. `dtypes` overrides the dtype of an input, by canonical name.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] | None = None
    dtypes: Mapping[str, str] = field(default_factory=dict)
    order: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Deployment:
    """How a consumer runs one family.

    `files` gives, by kind of component, the path that it opens below the folder of artifacts,
    without the ending. `size` is what its own tools compile when no size is named.
    """

    files: Mapping[str, str]
    size: Size
    only: bool = False
    """Whether it runs no other size."""


@dataclass(frozen=True)
class OwnSampling:
    """How a consumer draws that cannot be told how.

    `noise` is one of `runtime.noise.NOISES`; `because` says in a user's words who draws so.
    """

    scheduler: str
    steps: int
    guidance: float
    noise: str
    because: str

    def advice(self) -> dict[str, Any]:
        """As `Bundle.sampling` has it."""
        return {
            "scheduler": self.scheduler,
            "steps": self.steps,
            "guidance": self.guidance,
            "because": self.because,
        }


@dataclass(frozen=True)
class InterfaceProfile:
    """One consumer's demands on every component."""

    name: str
    consumer: str
    always_residual_ports: bool
    """Whether the UNet has a ControlNet's ports even when the bundle has no ControlNet."""
    components: Mapping[str, ComponentProfile]
    target: str = "onnxruntime"
    """The target whose artifacts this consumer runs."""
    batch: int = 1
    """The UNet batch that it runs."""
    batches: Mapping[str, int] = field(default_factory=dict)
    """By kind of component, where it runs others than the UNet with more than one row."""
    padding: Mapping[str, int] = field(default_factory=dict)
    """By text encoder, the token behind the end of a prompt, where it is not the family's."""
    embedded: bool = False
    """Whether the UNet is handed embeddings of time and sizes, which its host computes, and every
    input has four axes: see `converter.components.embedded_interface`."""
    kinds: tuple[str, ...] = COMPONENTS
    """The kinds of components that are made for it."""
    sampling: OwnSampling | None = None
    """How it draws, where that is not for the user to say."""
    precisions: Mapping[str, str] = field(default_factory=dict)
    """By kind of component, where its own artifacts differ from what the target would choose."""
    deployments: Mapping[tuple[str, bool], Deployment] = field(default_factory=dict)
    """By family, and whether the UNet has a ControlNet's ports; empty: it runs any."""

    def check(self, architecture: Architecture) -> None:
        """Raise InputError for a model that this consumer cannot run."""
        families = dict.fromkeys(family for family, _ in self.deployments)
        if families and architecture.family not in families:
            raise InputError(
                f"profile {self.name} is for {' and '.join(families)} only ({self.consumer}), and "
                f"this is {architecture.family}: add --profile diffusers"
            )
        if families and self.deployment(architecture) is None:
            raise InputError(
                f"profile {self.name} knows no ControlNet for {architecture.family} "
                f"({self.consumer}): leave --controlnet out, or add --profile diffusers"
            )
        unet = architecture.unet
        if self.embedded and unet is not None and unet.timestep_cond_dim:
            raise InputError(
                f"profile {self.name} embeds the timestep alone, and a full LCM is told the "
                "guidance besides: add --profile diffusers"
            )
        if not self.residual_ports(architecture) or unet is None:
            return
        if unet.middle_depth is None or unet.timestep_cond_dim:
            what = "has no middle block" if unet.middle_depth is None else "is a full LCM"
            advice = (
                "add --profile diffusers"
                if self.always_residual_ports
                else "leave --controlnet out"
            )
            raise InputError(
                f"profile {self.name} wants a ControlNet's residual behind the timestep and the "
                f"text, in every block, and this UNet {what}: {advice}"
            )

    def deployment(self, architecture: Architecture) -> Deployment | None:
        """How the consumer runs this model; None where its files and sizes are anybody's."""
        return self.deployments.get((architecture.family, self.residual_ports(architecture)))

    def file(self, component: str, architecture: Architecture) -> str | None:
        """Where the consumer opens a component; a second ControlNet's path ends in ``_2``."""
        deployment, kind = self.deployment(architecture), kind_of(component)
        if deployment is None or kind not in deployment.files:
            return None
        return deployment.files[kind] + component.removeprefix(kind)

    def presented(self, architecture: Architecture) -> Architecture:
        """The model with the further outputs that this consumer binds."""
        text = architecture.text_encoder
        bound = self.components.get("text_encoder", ComponentProfile()).outputs or {}
        if text is None or text.final_norm:
            return architecture
        # Where both states have one name, the one that the UNet takes is meant.
        both = LAST_STATE in bound and bound[LAST_STATE] != bound.get(PENULTIMATE_STATE)
        more = replace(text, last_state=both, pooled=END_STATE in bound)
        return replace(architecture, text_encoder=more)

    def residual_ports(self, architecture: Architecture) -> bool:
        """Whether the UNet has the ports that a ControlNet's outputs go to."""
        return self.always_residual_ports or bool(architecture.controlnets)

    def check_sizes(self, architecture: Architecture, sizes: Iterable[Size]) -> None:
        """Raise InputError for a picture size that the model cannot take behind these ports."""
        ports = self.residual_ports(architecture)
        multiple = size_multiple(architecture, residual_ports=ports)
        deployment = self.deployment(architecture)
        for size in sizes:
            if deployment is not None and deployment.only and size != deployment.size:
                raise InputError(
                    f"size {size}: profile {self.name} runs {deployment.size} only "
                    f"({self.consumer}): take that size, or export with --profile diffusers"
                )
            check_size(size, multiple)

    def batch_of(self, component: str, batch: int) -> int:
        """The rows of one run, where the denoiser's are `batch`.

        Hosts encode one prompt and decode one picture at a time, unless `batches` says otherwise.
        """
        kind = kind_of(component)
        usual = batch if kind == "unet" or is_controlnet(component) else 1
        return self.batches.get(kind, usual)

    def interface(self, component: str, architecture: Architecture) -> Interface:
        """The component's ports as this consumer binds them."""
        canonical = self.canonical(component, architecture)
        inputs = self.inputs(component, canonical)
        by_name = {port.name: port for port in canonical.outputs}
        kept = self.outputs(component, canonical)
        outputs = tuple(replace(by_name[name], name=new) for name, new in kept.items())
        return Interface(tuple(inputs.values()), outputs)

    def canonical(self, component: str, architecture: Architecture) -> Interface:
        """The component's ports before they are renamed, reordered and dropped."""
        ports = self.residual_ports(architecture)
        plain = interface(component, architecture, residual_ports=ports)
        if not self.embedded or component != "unet" or architecture.unet is None:
            return plain
        return embedded_interface(plain, architecture.unet)

    def fed(self, component: str, architecture: Architecture) -> Mapping[str, str]:
        """Weights of the layers that inputs of their own go to, and the names of these inputs."""
        unet = architecture.unet
        if not self.embedded or component != "unet" or unet is None:
            return {}
        added = {"add_embedding.linear_1.weight": ADDED} if unet.addition_dim else {}
        return {"time_embedding.linear_1.weight": TIME, **added}

    def inputs(self, component: str, canonical: Interface) -> Mapping[str, Port]:
        """Canonical input name -> the consumer's port, in the consumer's order."""
        mine = self.components.get(kind_of(component), ComponentProfile())
        ports = {port.name: port for port in canonical.inputs}
        return {
            name: replace(
                ports[name],
                name=mine.inputs.get(name, name),
                dtype=mine.dtypes.get(name, ports[name].dtype),
            )
            for name in mine.order or ports
        }

    def outputs(self, component: str, canonical: Interface) -> Mapping[str, str]:
        """Canonical output name -> the consumer's, for the outputs it keeps, in order."""
        mine = self.components.get(kind_of(component), ComponentProfile())
        names = [port.name for port in canonical.outputs]
        if mine.outputs is None:
            return {name: name for name in names}
        return {name: new for name, new in mine.outputs.items() if name in names}
