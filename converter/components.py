"""The components of a model and their ports, before any consumer's profile renames them."""

from collections.abc import Collection, Iterable
from dataclasses import replace

from converter.architecture import (
    CONTROLNET,
    Architecture,
    Part,
    TextEncoderArchitecture,
    UNetArchitecture,
)
from converter.errors import InputError
from converter.families.controlnet import is_controlnet
from converter.families.registry import FAMILIES
from converter.families.rules import TensorRule
from converter.families.unet import down_residuals
from converter.interface import Dim, Interface, Port
from converter.sizes import LATENT_SCALE

COMPONENTS = (
    "text_encoder", "text_encoder_2", CONTROLNET, "unet", "vae_encoder", "vae_decoder",
)  # fmt: skip
"""Every kind of component, in the order in which a picture passes them."""

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")

PART_OF = {
    "text_encoder": "text_encoder",
    "text_encoder_2": "text_encoder_2",
    CONTROLNET: CONTROLNET,
    "unet": "unet",
    "vae_encoder": "vae",
    "vae_decoder": "vae",
}
"""Kind of component -> the part of a model that it is made from."""

LAST_STATE, PENULTIMATE_STATE, POOLED, END_STATE = (
    "last_hidden_state", "penultimate_hidden_state", "text_embeds", "pooler_output",
)  # fmt: skip
"""Outputs of a text encoder: through the final norm, before it, pooled and projected, pooled."""

TIME, ADDED = "time_embedding", "added_embedding"
"""Inputs of a UNet whose host embeds the timestep, and for SDXL the pooled text and the sizes."""

TEXT_POSITIONS = 77
"""Tokens of a prompt, where no text encoder tells: CLIP's."""


def part(architecture: Architecture, component: str) -> Part | None:
    """The part of an architecture that describes a component; None when it is lacking."""
    return architecture.parts.get(PART_OF.get(component, component))


def complete(architecture: Architecture) -> tuple[str, ...]:
    """The components that a complete checkpoint of this family holds."""
    return FAMILIES[architecture.family].components


def text_encoders(family: str) -> tuple[str, ...]:
    """The text encoders whose embeddings the UNets of a family take, joined in this order."""
    known = FAMILIES.get(family)
    return ("text_encoder",) if known is None else tuple(known.text_encoders)


def available(architecture: Architecture) -> tuple[str, ...]:
    """The components that a model of this architecture holds."""
    names = {kind: [kind] for kind in COMPONENTS}
    names[CONTROLNET] = [name for name in architecture.parts if is_controlnet(name)]
    every = (name for kind in COMPONENTS for name in names[kind])
    return tuple(name for name in every if part(architecture, name) is not None)


def rules(
    component: str, architecture: Architecture, names: Collection[str] = ()
) -> list[TensorRule]:
    """Every tensor of a component: module name, name in the file, shape.

    Where a family has several spellings, the one found among the file's `names` is taken.
    """
    found = part(architecture, component)
    if found is None:
        held = ", ".join(available(architecture))
        raise InputError(f"no {component} in this checkpoint: it holds {held}")
    return list(FAMILIES[architecture.family].rules(component, found, names))


def hidden_state(outputs: Iterable[Port]) -> str:
    """The name of the text encoder's output that the UNet attends to."""
    names = [port.name for port in outputs]
    return PENULTIMATE_STATE if PENULTIMATE_STATE in names else names[0]


def text_positions(architecture: Architecture) -> int:
    """Tokens of a prompt that the UNet attends to."""
    text = architecture.text_encoder or architecture.text_encoder_2
    return TEXT_POSITIONS if text is None else text.positions


def interface(component: str, architecture: Architecture, *, residual_ports: bool) -> Interface:
    """The ports of a component under their canonical (diffusers) names.

    With `residual_ports` the UNet also takes what a ControlNet adds: the residual of the middle
    block, then one per down-block output. A ControlNet's outputs have the names of these ports.
    """
    described = part(architecture, component)
    if isinstance(described, TextEncoderArchitecture):
        return _text_interface(described)
    if isinstance(described, UNetArchitecture):
        if is_controlnet(component):
            return _controlnet_interface(architecture, described)
        return _unet_interface(architecture, described, residual_ports)
    assert described is not None
    vae = described
    latent = _picture(LATENT_SCALE)
    if component == "vae_encoder":
        moments = ("batch", 2 * vae.latent_channels, *latent)
        return Interface(
            (Port("sample", "float32", ("batch", 3, "height", "width")),),
            (Port("latent_parameters", "float32", moments),),
        )
    return Interface(
        (Port("latent_sample", "float32", ("batch", vae.latent_channels, *latent)),),
        (Port("sample", "float32", ("batch", 3, "height", "width")),),
    )


def embedded_interface(plain: Interface, unet: UNetArchitecture) -> Interface:
    """The ports of a UNet whose host computes what depends on time and sizes alone.

    TIME is the sinusoidal embedding of the timestep (cosines, then sines), ADDED the pooled text
    and the embeddings of SDXL's sizes, joined. Inputs have four axes.
    """
    gone = ("timestep", POOLED, "time_ids")
    ports = []
    for port in (port for port in plain.inputs if port.name not in gone):
        batch, *rest = port.shape
        ports.append(replace(port, shape=(batch, *(1,) * (3 - len(rest)), *rest)))
    ports.append(Port(TIME, "float32", ("batch", 1, 1, unet.block_channels[0])))
    if unet.addition_dim:
        ports.append(Port(ADDED, "float32", ("batch", 1, 1, unet.addition_dim)))
    return Interface(tuple(ports), plain.outputs)


def size_multiple(architecture: Architecture, *, residual_ports: bool) -> int:
    """Picture sides must be multiples of this many pixels.

    Every size divisible by the latent scale works, because up-sampling takes its size from the
    skip connection. With residual ports the sizes of all levels are tied to each other, so the
    side must halve evenly at every level.
    """
    unets = [unet for unet in (architecture.unet, *architecture.controlnets) if unet is not None]
    if not residual_ports or not unets:
        return LATENT_SCALE
    return int(LATENT_SCALE * 2 ** (len(unets[0].block_channels) - 1))


def _picture(divisor: int) -> tuple[str, str]:
    return f"height/{divisor}", f"width/{divisor}"


def _text_interface(text: TextEncoderArchitecture) -> Interface:
    """One hidden state per token, and one vector per prompt where the UNet takes one."""
    tokens: tuple[Dim, ...] = ("batch", text.positions)
    state = Port(LAST_STATE, "float32", (*tokens, text.hidden_size))
    outputs = [state if text.final_norm else replace(state, name=PENULTIMATE_STATE)]
    if text.projection_dim:
        outputs.append(Port(POOLED, "float32", ("batch", text.projection_dim)))
    elif text.last_state:
        outputs.append(state)
    elif text.final_norm or text.pooled:
        outputs.append(Port(END_STATE, "float32", ("batch", text.hidden_size)))
    return Interface((Port("input_ids", "int32", tokens),), tuple(outputs))


def _unet_interface(
    architecture: Architecture, unet: UNetArchitecture, residual_ports: bool
) -> Interface:
    inputs = _denoiser_inputs(architecture, unet)
    if unet.timestep_cond_dim:
        inputs.insert(3, Port("timestep_cond", "float32", ("batch", unet.timestep_cond_dim)))
    if residual_ports:
        *down, middle = _residuals(unet)
        inputs += [middle, *down]
    outputs = (
        Port("out_sample", "float32", ("batch", unet.out_channels, *_picture(LATENT_SCALE))),
    )
    return Interface(tuple(inputs), outputs)


def _controlnet_interface(architecture: Architecture, net: UNetArchitecture) -> Interface:
    inputs = _denoiser_inputs(architecture, net)
    inputs.insert(3, Port("controlnet_cond", "float32", ("batch", 3, "height", "width")))
    return Interface(tuple(inputs), tuple(_residuals(net)))


def _denoiser_inputs(architecture: Architecture, unet: UNetArchitecture) -> list[Port]:
    """What UNet and ControlNet both take."""
    context = ("batch", text_positions(architecture), unet.context_dim)
    inputs = [
        Port("sample", "float32", ("batch", unet.in_channels, *_picture(LATENT_SCALE))),
        Port("timestep", "float32", (1,)),
        Port("encoder_hidden_states", "float32", context),
    ]
    if unet.addition_dim:
        inputs.append(Port("text_embeds", "float32", ("batch", unet.pooled_dim)))
        inputs.append(Port("time_ids", "float32", ("batch", unet.time_ids)))
    return inputs


def _residuals(unet: UNetArchitecture) -> list[Port]:
    """What a ControlNet adds: to every output of the way down, in order, and to the middle."""
    middle = (unet.block_channels[-1], len(unet.block_channels) - 1)
    shapes = {f"down_block_additional_residual_{i}": s for i, s in enumerate(down_residuals(unet))}
    shapes["mid_block_additional_residual"] = middle
    return [Port(n, "float32", ("batch", *_cell(*shape))) for n, shape in shapes.items()]


def _cell(channels: int, level: int) -> tuple[Dim, ...]:
    return (channels, *_picture(LATENT_SCALE * 2**level))
