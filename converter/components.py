"""The components of a model and their ports, before any consumer's profile renames them."""

from collections.abc import Callable

from converter.architecture import Architecture, UNetArchitecture
from converter.errors import InputError
from converter.families import sd15
from converter.families.rules import TensorRule
from converter.interface import Dim, Interface, Port
from converter.sizes import LATENT_SCALE

COMPONENTS = ("text_encoder", "unet", "vae_encoder", "vae_decoder")

PART_OF = {
    "text_encoder": "text_encoder",
    "unet": "unet",
    "vae_encoder": "vae",
    "vae_decoder": "vae",
}
"""Component -> the part of the architecture that describes it."""


def available(architecture: Architecture) -> tuple[str, ...]:
    """The components that a file of this architecture holds."""
    return tuple(c for c in COMPONENTS if getattr(architecture, PART_OF[c]) is not None)


def rules(component: str, architecture: Architecture, text_prefix: str) -> list[TensorRule]:
    """Every tensor of a component: module name, name in the file, shape."""
    tables: dict[str, Callable[[], list[TensorRule]]] = {}
    if (text := architecture.text_encoder) is not None:
        tables["text_encoder"] = lambda: sd15.text_encoder_rules(text, text_prefix)
    if (unet := architecture.unet) is not None:
        tables["unet"] = lambda: sd15.unet_rules(unet)
    if (vae := architecture.vae) is not None:
        tables["vae_encoder"] = lambda: sd15.vae_encoder_rules(vae)
        tables["vae_decoder"] = lambda: sd15.vae_decoder_rules(vae)
    if component not in tables:
        raise InputError(f"no {component} in this checkpoint: it holds {', '.join(tables)}")
    return tables[component]()


def interface(component: str, architecture: Architecture, *, residual_ports: bool) -> Interface:
    """The ports of a component under their canonical (diffusers) names.

    With `residual_ports` the UNet also takes what a ControlNet adds: the residual of the middle
    block, then one per down-block output.
    """
    if component == "text_encoder":
        text = architecture.text_encoder
        assert text is not None
        tokens: tuple[Dim, ...] = ("batch", text.positions)
        return Interface(
            (Port("input_ids", "int32", tokens),),
            (
                Port("last_hidden_state", "float32", (*tokens, text.hidden_size)),
                Port("pooler_output", "float32", ("batch", text.hidden_size)),
            ),
        )
    if component == "unet":
        assert architecture.unet is not None
        return _unet_interface(architecture, architecture.unet, residual_ports)
    vae = architecture.vae
    assert vae is not None
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


def size_multiple(architecture: Architecture, *, residual_ports: bool) -> int:
    """Picture sides must be multiples of this many pixels.

    Every size divisible by the latent scale works, because up-sampling takes its size from the
    skip connection. With residual ports the sizes of all levels are tied to each other, so the
    side must halve evenly at every level.
    """
    if not residual_ports or architecture.unet is None:
        return LATENT_SCALE
    return int(LATENT_SCALE * 2 ** (len(architecture.unet.block_channels) - 1))


def _picture(divisor: int) -> tuple[str, str]:
    return f"height/{divisor}", f"width/{divisor}"


def _unet_interface(
    architecture: Architecture, unet: UNetArchitecture, residual_ports: bool
) -> Interface:
    text = architecture.text_encoder
    latent = _picture(LATENT_SCALE)
    inputs = [
        Port("sample", "float32", ("batch", unet.in_channels, *latent)),
        Port("timestep", "float32", (1,)),
        Port(
            "encoder_hidden_states",
            "float32",
            ("batch", 77 if text is None else text.positions, unet.context_dim),
        ),
    ]
    if residual_ports:
        down = sd15.down_residuals(unet)
        middle = ("batch", *_cell(unet.block_channels[-1], len(unet.block_channels) - 1))
        inputs.append(Port("mid_block_additional_residual", "float32", middle))
        inputs += [
            Port(f"down_block_additional_residual_{i}", "float32", ("batch", *_cell(*shape)))
            for i, shape in enumerate(down)
        ]
    outputs = (Port("out_sample", "float32", ("batch", unet.out_channels, *latent)),)
    return Interface(tuple(inputs), outputs)


def _cell(channels: int, level: int) -> tuple[Dim, ...]:
    return (channels, *_picture(LATENT_SCALE * 2**level))
