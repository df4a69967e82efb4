"""The sampling loop: prompt -> picture, the same for every runner."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from converter.errors import InputError
from converter.interface import Interface
from converter.sizes import LATENT_CHANNELS, LATENT_SCALE, Size
from converter.weights import Array
from runtime.hints import Hint, HintFile
from runtime.schedulers import Scheduler
from runtime.tokenizer import END_TOKEN, tokenize
from targets.base import Runner

NEEDED = ("text_encoder", "unet", "vae_decoder")
"""The components that draw."""

HINT_PORTS = ("controlnet_cond", "image")
"""What the profiles call the port of a ControlNet's hint."""


@dataclass(frozen=True)
class PictureRequest:
    """What to draw. With `guidance` above 1 the UNet also runs on the negative prompt.

    `hints` are the pictures that ControlNets follow.

    `guidance` is the scale of classifier-free guidance (arXiv 2207.12598) as diffusers counts it:
    noise = negative + guidance * (prompt - negative).
    """

    prompt: str
    negative: str = ""
    scheduler: str = "ddim"
    steps: int = 20
    guidance: float = 7.5
    seed: int = 0
    hints: tuple[HintFile, ...] = ()

    @property
    def components(self) -> tuple[str, ...]:
        """The components that draw this."""
        return (*NEEDED, *dict.fromkeys(hint.component for hint in self.hints))

    def identity(self) -> dict[str, Any]:
        """Everything that the picture depends on besides the weights, as JSON."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        hints = [hint.identity() for hint in values.pop("hints")]
        return {**values, "hints": hints} if hints else values

    @property
    def guided(self) -> bool:
        """Whether the UNet runs twice a step."""
        return self.guidance > 1

    def command(self) -> list[str]:
        """Return the options of `generate` and `validate` that ask for this."""
        words = ["--prompt", self.prompt]
        for option in fields(self)[1:-1]:
            value = getattr(self, option.name)
            if value != option.default:
                words += [f"--{option.name}", f"{value:g}" if option.type is float else str(value)]
        for hint in self.hints:
            words += ["--hint", str(hint)]
        return words

    @property
    def sentence(self) -> str:
        """In words: ``"a red circle", 4 steps of lcm, guidance 1, seed 0``."""
        negative = f', without "{self.negative}"' if self.guided and self.negative else ""
        return (
            f'"{self.prompt}"{negative}, {self.steps} steps of {self.scheduler}, '
            f"guidance {self.guidance:g}, seed {self.seed}"
            + "".join(f", {hint.component} on {hint.path.name}" for hint in self.hints)
        )


@dataclass(frozen=True)
class Network:
    """A component that can be run: its ports, and the batch it was compiled for (None: any)."""

    runner: Runner
    interface: Interface
    batch: int | None

    def __call__(self, *inputs: Array) -> list[Array]:
        """Run on inputs in the order of the ports; outputs in the order of theirs.

        Inputs have the same number of rows, however many, except a timestep [1]. Rows are run
        in parts of the compiled batch; the last part is filled up by repeating its last row.
        """
        rows = len(inputs[0])
        batch = self.batch or rows
        parts = [self._run(inputs, range(first, first + batch)) for first in range(0, rows, batch)]
        return [np.concatenate(outputs)[:rows] for outputs in zip(*parts, strict=True)]

    def _run(self, inputs: Sequence[Array], rows: range) -> list[Array]:
        given = {}
        for port, array in zip(self.interface.inputs, inputs, strict=True):
            mine = array if port.shape == (1,) else array[[min(r, len(array) - 1) for r in rows]]
            given[port.name] = np.ascontiguousarray(mine, port.dtype)
        outputs = self.runner.infer(given)
        return [outputs[port.name] for port in self.interface.outputs]


@dataclass(frozen=True)
class Drawing:
    """What came out: `picture` float32 [3, H, W] in about [-1, 1], and the latent of every step."""

    picture: Array
    latents: Sequence[Array] = field(repr=False)

    @property
    def pixels(self) -> Array:
        """As an image: uint8 [H, W, 3]. Not-a-number becomes black."""
        return to_pixels(self.picture)


def to_pixels(picture: Array) -> Array:
    """Turn a picture [3, H, W] in [-1, 1] into uint8 [H, W, 3]; not-a-number becomes black."""
    levels = (np.nan_to_num(picture, nan=-1.0).clip(-1, 1) + 1) * 127.5
    return np.asarray(levels.round().astype(np.uint8).transpose(1, 2, 0))


@dataclass(frozen=True)
class Pipeline:
    """Everything that draws at one picture size.

    `networks` holds text_encoder, unet and vae_decoder, and where a hint is to be followed its
    controlnet, whose outputs have the names of the UNet's ports that they go to.
    `padding` is the token behind the end of a prompt.
    """

    networks: Mapping[str, Network]
    size: Size
    scaling_factor: float
    prediction_type: str = "epsilon"
    zero_terminal_snr: bool = False
    padding: int = END_TOKEN

    def draw(
        self,
        request: PictureRequest,
        hints: Sequence[Hint] = (),
        on_step: Callable[[int], None] = lambda _: None,
    ) -> Drawing:
        """Draw a picture; `hints` are followed beside those that the request names.

        `on_step` is told how many steps are done. Raises InputError for options that do not fit.
        """
        hints = [*hints, *(hint.read(self.size) for hint in request.hints)]
        scheduler = Scheduler(
            request.scheduler,
            request.steps,
            self.prediction_type,
            request.seed,
            zero_terminal_snr=self.zero_terminal_snr,
        )
        context = self._context(request)
        latent = first_latent(self.size, request.seed) * np.float32(scheduler.first_deviation)
        latents = []
        for index, timestep in enumerate(scheduler.timesteps):
            rows = np.repeat(scheduler.scale(latent, index), len(context), axis=0)
            noise = self._noise(rows, np.array([timestep], np.float32), context, hints)
            if request.guided:
                noise = noise[:1] + np.float32(request.guidance) * (noise[1:] - noise[:1])
            latent = scheduler.step(noise, latent, index)
            latents.append(latent)
            on_step(index + 1)
        picture = self.networks["vae_decoder"](latent / np.float32(self.scaling_factor))[0][0]
        return Drawing(picture, latents)

    def _context(self, request: PictureRequest) -> Array:
        """Embed the prompts: [1 or 2, 77, width], the negative one first."""
        prompts = [request.negative] * request.guided + [request.prompt]
        return self.networks["text_encoder"](tokenize(prompts, self.padding))[0]

    def _noise(self, rows: Array, timestep: Array, context: Array, hints: Sequence[Hint]) -> Array:
        unet = self.networks["unet"]
        ports = unet.interface.inputs[3:]
        added = {port.name: np.zeros(port.at(len(rows), self.size), np.float32) for port in ports}
        for hint in hints:
            for name, residual in self._residuals(hint, rows, timestep, context).items():
                added[name] += np.float32(hint.scale) * residual
        return unet(rows, timestep, context, *added.values())[0]

    def _residuals(
        self, hint: Hint, rows: Array, timestep: Array, context: Array
    ) -> dict[str, Array]:
        """Run a ControlNet; its outputs by name."""
        net = self.networks.get(hint.component)
        if net is None:
            raise InputError(
                f"a hint for {hint.component}, which is not here: export with --controlnet FILE"
            )
        pictures = np.repeat(hint.picture[None], len(rows), axis=0)
        given = {
            "sample": rows, "timestep": timestep, "encoder_hidden_states": context,
            **dict.fromkeys(HINT_PORTS, pictures),
        }  # fmt: skip
        outputs = net(*(given[port.name] for port in net.interface.inputs))
        return {p.name: a for p, a in zip(net.interface.outputs, outputs, strict=True)}


def first_latent(size: Size, seed: int) -> Array:
    """Return the noise that sampling begins with: float32 [1, 4, H/8, W/8], the same everywhere."""
    shape = (1, LATENT_CHANNELS, size.height // LATENT_SCALE, size.width // LATENT_SCALE)
    return np.random.default_rng(seed).standard_normal(shape, np.float32)
