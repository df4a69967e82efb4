"""The sampling loop: prompt -> picture, the same for every runner."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from converter.errors import InputError
from converter.sizes import Size
from converter.weights import Array
from runtime.conditioning import (
    CONTEXT,
    GUIDANCE,
    SIZES,
    PromptRules,
    embed_prompts,
    embedded,
    guidance_embedding,
    is_told_guidance,
    size_ids,
)
from runtime.hints import Hint, HintFile
from runtime.network import Network
from runtime.noise import first_latent
from runtime.schedulers import Scheduler

HINT_PORTS = ("controlnet_cond", "image")
"""What the profiles call the port of a ControlNet's hint."""


@dataclass(frozen=True)
class PictureRequest:
    """What to draw. With `guidance` above 1 the UNet also runs on the negative prompt.

    `negative` None is not the empty prompt for every family: see `PromptRules`. `hints` are the
    pictures that ControlNets follow. `noise` is one of `runtime.noise.NOISES`, empty the one that
    the consumer draws with. With `early` so many steps are left out, and what the step before them
    takes the picture to be is decoded.

    `guidance` is the scale of classifier-free guidance (arXiv 2207.12598) as diffusers counts it:
    noise = negative + guidance * (prompt - negative).
    """

    prompt: str
    negative: str | None = None
    scheduler: str = "ddim"
    steps: int = 20
    guidance: float = 7.5
    seed: int = 0
    noise: str = ""
    early: int = 0
    hints: tuple[HintFile, ...] = ()

    @property
    def controlnets(self) -> tuple[str, ...]:
        """The components that follow the hints."""
        return tuple(dict.fromkeys(hint.component for hint in self.hints))

    def identity(self) -> dict[str, Any]:
        """Everything that the picture depends on besides the weights, as JSON."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        hints = [hint.identity() for hint in values.pop("hints")]
        chosen = {"hints": hints, "noise": values.pop("noise"), "early": values.pop("early")}
        return {**values, **{name: value for name, value in chosen.items() if value}}

    @property
    def guided(self) -> bool:
        """Whether the UNet runs twice a step, unless it is told the guidance (a full LCM's)."""
        return self.guidance > 1

    @property
    def sampling(self) -> dict[str, Any]:
        """Scheduler, steps and guidance, as `Bundle.sampling` has them."""
        return {"scheduler": self.scheduler, "steps": self.steps, "guidance": self.guidance}

    @property
    def sampling_sentence(self) -> str:
        """In words: ``4 steps of lcm, guidance 1``."""
        return f"{self.steps} steps of {self.scheduler}, guidance {self.guidance:g}"

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
        seed = f"seed {self.seed}" + (f" of {self.noise}" if self.noise else "")
        return f'"{self.prompt}"{negative}, {self.sampling_sentence}, {seed}' + "".join(
            f", {hint.component} on {hint.path.name}" for hint in self.hints
        )


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

    `networks` holds the family's text encoders, unet and vae_decoder, and where a hint is to be
    followed its controlnet, whose outputs have the names of the UNet's ports that they go to.
    """

    networks: Mapping[str, Network]
    size: Size
    scaling_factor: float
    prediction_type: str = "epsilon"
    zero_terminal_snr: bool = False
    prompt_rules: PromptRules = field(default_factory=PromptRules)
    noise: str = "numpy"

    def draw(
        self,
        request: PictureRequest,
        hints: Sequence[Hint] = (),
        on_step: Callable[[int], None] = lambda _: None,
    ) -> Drawing:
        """Draw a picture: `sample`, then `decode` the last latent."""
        latents = self.sample(request, hints, on_step)
        return Drawing(self.decode(latents[-1]), latents)

    def sample(
        self,
        request: PictureRequest,
        hints: Sequence[Hint] = (),
        on_step: Callable[[int], None] = lambda _: None,
    ) -> list[Array]:
        """Return the latent after every step; `hints` are followed beside those of the request.

        `on_step` is told how many steps are done. Needs no vae_decoder. Raises InputError for
        options that do not fit.
        """
        hints = [*hints, *(hint.read(self.size) for hint in request.hints)]
        told = is_told_guidance(self.networks["unet"].interface)
        return self.denoise(request, self.embed(request, told=told), hints, on_step)

    def embed(self, request: PictureRequest, *, told: bool = False) -> dict[str, Array]:
        """What the prompts are to UNet and ControlNets: 1 or 2 rows, the negative prompt's first.

        `told`: the UNet is told the guidance scale, and runs on the prompt alone.
        """
        if told and request.negative:
            raise InputError(
                "this UNet is a full LCM, which knows no negative prompt: leave --negative out"
            )
        guided = request.guided and not told
        prompts = [*([request.negative] if guided else []), request.prompt]
        return embed_prompts(self.networks, self.prompt_rules, prompts)

    def denoise(
        self,
        request: PictureRequest,
        embeddings: Mapping[str, Array],
        hints: Sequence[Hint] = (),
        on_step: Callable[[int], None] = lambda _: None,
    ) -> list[Array]:
        """Run the sampling loop on what `embed` gave; the latent of every step."""
        if not 0 <= request.early < request.steps:
            raise InputError(f"{request.early} steps left out of {request.steps}: one must be made")
        scheduler = self.scheduler(request)
        conditions = self._conditions(request, embeddings)
        count = len(conditions[CONTEXT])
        latent = first_latent(self.size, request.seed, request.noise or self.noise)
        latent = latent * np.float32(scheduler.first_deviation)
        latents: list[Array] = []
        last = request.steps - 1 - request.early
        for index, timestep in enumerate(scheduler.timesteps[: last + 1]):
            given = {
                "sample": np.repeat(scheduler.scale(latent, index), count, axis=0),
                "timestep": np.array([timestep], np.float32),
                **conditions,
            }
            noise = self._noise(given, hints)
            if count > 1:
                noise = noise[:1] + np.float32(request.guidance) * (noise[1:] - noise[:1])
            cut = request.early > 0 and index == last
            latent = (scheduler.clean if cut else scheduler.step)(noise, latent, index)
            latents.append(latent)
            on_step(index + 1)
        return latents

    def scheduler(self, request: PictureRequest) -> Scheduler:
        """The schedule of a picture. Raises InputError for options that do not fit."""
        return Scheduler(
            request.scheduler,
            request.steps,
            self.prediction_type,
            request.seed,
            zero_terminal_snr=self.zero_terminal_snr,
        )

    def decode(self, latent: Array) -> Array:
        """The picture of a latent: float32 [3, H, W] in about [-1, 1]."""
        picture: Array = self.networks["vae_decoder"](latent / np.float32(self.scaling_factor))[0][
            0
        ]
        return picture

    def _conditions(
        self, request: PictureRequest, embeddings: Mapping[str, Array]
    ) -> dict[str, Array]:
        """What stays the same over all steps, by port."""
        unet = self.networks["unet"].interface
        rows = len(embeddings[CONTEXT])
        same = {SIZES: size_ids(self.size)}
        if is_told_guidance(unet):
            width = unet.input_shapes(1, self.size)[GUIDANCE][1]
            same[GUIDANCE] = guidance_embedding(request.guidance, width)
        repeated = {name: np.repeat(row, rows, axis=0) for name, row in same.items()}
        return {**embeddings, **repeated}

    def _noise(self, given: Mapping[str, Array], hints: Sequence[Hint]) -> Array:
        unet, count = self.networks["unet"], len(given["sample"])
        given = embedded(given, unet.interface)
        added = {
            port.name: np.zeros(port.at(count, self.size), np.float32)
            for port in unet.interface.inputs
            if port.name not in given
        }
        for hint in hints:
            for name, residual in self._residuals(hint, given).items():
                added[name] += np.float32(hint.scale) * residual
        (noise,) = unet.by_name({**given, **added}).values()
        return noise

    def _residuals(self, hint: Hint, given: Mapping[str, Array]) -> dict[str, Array]:
        """Run a ControlNet; its outputs by name."""
        net = self.networks.get(hint.component)
        if net is None:
            raise InputError(
                f"a hint for {hint.component}, which is not here: export with --controlnet FILE"
            )
        pictures = np.repeat(hint.picture[None], len(given["sample"]), axis=0)
        return net.by_name({**given, **dict.fromkeys(HINT_PORTS, pictures)})
