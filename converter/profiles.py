"""Interface profiles: which consumer an artifact must run in unchanged, as data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from converter.architecture import CONTROLNET, Architecture
from converter.components import interface, size_multiple
from converter.errors import InputError
from converter.families.controlnet import kind_of
from converter.interface import Interface, Port
from converter.sizes import Size, check_size


@dataclass(frozen=True)
class ComponentProfile:
    """How one consumer names a component's ports.

    `inputs` maps canonical input names to the consumer's; inputs not listed keep theirs. `order`
    gives the canonical names in the consumer's order (None: as they are).
    `outputs` does so for the outputs kept, in order (None: all, as they are). `dtypes` overrides
    the dtype of an input, by canonical name.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] | None = None
    dtypes: Mapping[str, str] = field(default_factory=dict)
    order: tuple[str, ...] | None = None


@dataclass(frozen=True)
class InterfaceProfile:
    """One consumer's demands on every component."""

    name: str
    consumer: str
    always_residual_ports: bool
    """Whether the UNet has a ControlNet's ports even when the bundle has no ControlNet."""
    components: Mapping[str, ComponentProfile]
    family: str | None = None
    """The only family that this consumer runs; None: any."""

    def check(self, architecture: Architecture) -> None:
        """Raise InputError for a model that this consumer cannot run."""
        if self.family not in (None, architecture.family):
            raise InputError(
                f"profile {self.name} is for {self.family} only ({self.consumer}), and this is "
                f"{architecture.family}: add --profile {DIFFUSERS.name}"
            )
        unet = architecture.unet
        if not self.residual_ports(architecture) or unet is None:
            return
        if unet.middle_depth is None or unet.timestep_cond_dim:
            what = "has no middle block" if unet.middle_depth is None else "is a full LCM"
            advice = (
                f"add --profile {DIFFUSERS.name}"
                if self.always_residual_ports
                else "leave --controlnet out"
            )
            raise InputError(
                f"profile {self.name} wants a ControlNet's residual behind the timestep and the "
                f"text, in every block, and this UNet {what}: {advice}"
            )

    def residual_ports(self, architecture: Architecture) -> bool:
        """Whether the UNet has the ports that a ControlNet's outputs go to."""
        return self.always_residual_ports or bool(architecture.controlnets)

    def check_sizes(self, architecture: Architecture, sizes: Iterable[Size]) -> None:
        """Raise InputError for a picture size that the model cannot take behind these ports."""
        ports = self.residual_ports(architecture)
        multiple = size_multiple(architecture, residual_ports=ports)
        for size in sizes:
            check_size(size, multiple)

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
        return interface(component, architecture, residual_ports=ports)

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
        return mine.outputs or {port.name: port.name for port in canonical.outputs}


SD_LCM_TPU = InterfaceProfile(
    name="sd-lcm-tpu",
    consumer="SD1.5 hosts on Sophgo BM1684X: binds by position, reads output 0, knows no int64",
    always_residual_ports=True,
    family="sd15",
    components={
        "text_encoder": ComponentProfile(
            inputs={"input_ids": "tokens"}, outputs={"last_hidden_state": "last_hidden_state"}
        ),
        CONTROLNET: ComponentProfile(
            inputs={"controlnet_cond": "image"},
            order=("sample", "encoder_hidden_states", "controlnet_cond", "timestep"),
        ),
        "unet": ComponentProfile(outputs={"out_sample": "noise_pred"}),
        "vae_encoder": ComponentProfile(
            inputs={"sample": "image"}, outputs={"latent_parameters": "moments"}
        ),
        "vae_decoder": ComponentProfile(
            inputs={"latent_sample": "latent"}, outputs={"sample": "image"}
        ),
    },
)

DIFFUSERS = InterfaceProfile(
    name="diffusers",
    consumer="ONNX Runtime pipelines of diffusers and Optimum: binds by name",
    always_residual_ports=False,
    components={
        "text_encoder": ComponentProfile(dtypes={"input_ids": "int64"}),
        "text_encoder_2": ComponentProfile(dtypes={"input_ids": "int64"}),
    },
)

PROFILES = {profile.name: profile for profile in (SD_LCM_TPU, DIFFUSERS)}


def get_profile(name: str) -> InterfaceProfile:
    """The profile of that name; raises InputError listing what exists."""
    if name not in PROFILES:
        raise InputError(f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}")
    return PROFILES[name]
