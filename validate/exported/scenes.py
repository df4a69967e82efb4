"""The inputs that an exported graph is looked at with: small, of two sizes, times and batches."""

from collections.abc import Mapping

from converter.bundle import Bundle
from converter.sizes import Size
from converter.weights import Array
from validate.inputs import make_case
from validate.references import References
from validate.scenes import Scene

SIZES = (Size(192, 128), Size(128, 192))
"""Every profile takes them: multiples of 64, more than one cell at the lowest level of a UNet."""

WIDE = Scene("wide", "almost pure noise, timestep 981", prompt=0, picture=0, timestep=981)
TALL = Scene(
    "tall",
    "almost clean, between two timesteps: 20.5; a residual on every port",
    prompt=1,
    picture=1,
    timestep=20.5,  # as of Euler's schedules: who makes it an integer shows
    residuals=True,
)


def small_inputs(
    bundle: Bundle, component: str, scene: Scene, size: Size, batch: int, references: References
) -> Mapping[str, Array]:
    """Inputs by port name, of the kind of values that the network sees in use."""
    interface = bundle.components[component].interface
    shapes = interface.input_shapes(batch, size if interface.has_size else None)
    return make_case(component, scene, interface, shapes, references.origins()).inputs


def probing_inputs(bundle: Bundle, component: str, references: References) -> Mapping[str, Array]:
    """One case, by which modules and values are matched."""
    return small_inputs(bundle, component, TALL, SIZES[0], 1, references)
