"""Every hyper-parameter of a model, as inferred from names and shapes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, TypeVar

from converter.errors import InputError


class _Json:
    """Plain JSON values for frozen dataclasses of numbers, strings, booleans and tuples."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values (tuples become lists); `from_json` reads it back."""
        return {name: _lists(value) for name, value in asdict(self).items()}  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises TypeError for unknown fields."""
        return cls(**{name: _tuples(value) for name, value in data.items()})


def _lists(value: Any) -> Any:
    return [_lists(v) for v in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


CLIP_VOCABULARY = 49408
"""Tokens that every published CLIP knows; the last of them ends a prompt."""

TIME_ID_WIDTH = 256
"""Width of the sinusoidal embedding of each of SDXL's time ids (sizes and crops)."""


@dataclass(frozen=True)
class UNetArchitecture(_Json):
    """The denoiser. Tuples run over levels, from full latent resolution down.

    `down_depths` gives, per level, the number of transformer layers behind each residual block;
    `up_depths` the same on the way up, so from the lowest level. `middle_depth` 0 is a middle
    block of one residual block alone, None no middle block.

    `attention_heads` (per level) and `time_ids` leave no trace in the weights: they are the
    family's. `pooled_dim` is the width of the pooled text embedding added to the time embedding,
    `timestep_cond_dim` that of the guidance embedding of a full LCM; 0 where there is none.
    """

    in_channels: int
    out_channels: int
    block_channels: tuple[int, ...]
    down_depths: tuple[tuple[int, ...], ...]
    middle_depth: int | None
    up_depths: tuple[tuple[int, ...], ...]
    context_dim: int
    attention_heads: tuple[int, ...]
    linear_projection: bool = False
    pooled_dim: int = 0
    time_ids: int = 0
    timestep_cond_dim: int = 0

    @property
    def addition_dim(self) -> int:
        """Input width of the addition embedding: pooled text and embedded time ids; 0: none."""
        return self.pooled_dim + TIME_ID_WIDTH * self.time_ids


@dataclass(frozen=True)
class TextEncoderArchitecture(_Json):
    """A CLIP text transformer. `heads` is hidden_size / 64, as in every CLIP that was published.

    `layers` are those of the file. The UNet takes the hidden state that lies `clip_skip` layers
    before the last, through the final layer norm or not (`final_norm`). `projection_dim` is the
    width of the pooled, projected output that SDXL's UNet takes besides; 0 where there is none.
    With `last_state` the last hidden state is given too, and with `pooled` its vector at the end of
    the prompt; no UNet takes them, but a consumer binds them.
    """

    vocabulary: int
    positions: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    activation: str
    clip_skip: int = 0
    final_norm: bool = True
    projection_dim: int = 0
    last_state: bool = False
    pooled: bool = False

    @property
    def gives_more(self) -> bool:
        """Whether an output comes from behind the last layer, besides that of the UNet."""
        return self.projection_dim > 0 or self.last_state or self.pooled

    @property
    def computed_layers(self) -> int:
        """Layers that any output depends on; the pooled output depends on all."""
        return self.layers - (0 if self.gives_more else self.clip_skip)

    @property
    def norm_is_computed(self) -> bool:
        """Whether any output passes through the final layer norm."""
        return self.final_norm or self.gives_more


@dataclass(frozen=True)
class VaeArchitecture(_Json):
    """The KL autoencoder. `layers_per_block` counts residual blocks per encoder level."""

    latent_channels: int
    block_channels: tuple[int, ...]
    layers_per_block: int
    scaling_factor: float


CONTROLNET = "controlnet"


def controlnet_name(index: int) -> str:
    """``controlnet`` is the first (index 0), ``controlnet_2`` the second."""
    return f"{CONTROLNET}_{index + 1}" if index else CONTROLNET


Part = UNetArchitecture | TextEncoderArchitecture | VaeArchitecture
_Part = TypeVar("_Part", bound=_Json)


@dataclass(frozen=True)
class Architecture:
    """A family and the parts that a model holds; a part is None when it is lacking.

    A ControlNet is described by the UNet that it is a copy of, without the way up (`up_depths` is
    empty, `out_channels` 0).
    """

    family: str
    unet: UNetArchitecture | None
    text_encoder: TextEncoderArchitecture | None
    vae: VaeArchitecture | None
    text_encoder_2: TextEncoderArchitecture | None = None
    controlnets: tuple[UNetArchitecture, ...] = ()

    @property
    def parts(self) -> dict[str, Part]:
        """The parts that there are, by name."""
        single: dict[str, Part | None] = {
            "unet": self.unet,
            "text_encoder": self.text_encoder,
            "vae": self.vae,
            "text_encoder_2": self.text_encoder_2,
        }
        nets = {controlnet_name(i): net for i, net in enumerate(self.controlnets)}
        return {**{name: part for name, part in single.items() if part is not None}, **nets}

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` reads it back."""
        names = [f.name for f in fields(self) if f.name not in ("family", "controlnets")]
        parts = {name: getattr(self, name) for name in names}
        return {
            "family": self.family,
            **{name: None if part is None else part.to_json() for name, part in parts.items()},
            "controlnets": [net.to_json() for net in self.controlnets],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Architecture":
        """Read what `to_json` wrote; raises InputError for what another version wrote."""

        def part(name: str, kind: type[_Part]) -> _Part | None:
            return None if data.get(name) is None else kind.from_json(data[name])

        try:
            return cls(
                family=data["family"],
                unet=part("unet", UNetArchitecture),
                text_encoder=part("text_encoder", TextEncoderArchitecture),
                vae=part("vae", VaeArchitecture),
                text_encoder_2=part("text_encoder_2", TextEncoderArchitecture),
                controlnets=tuple(map(UNetArchitecture.from_json, data.get("controlnets", ()))),
            )
        except (AttributeError, KeyError, TypeError) as e:
            raise InputError(
                f"the bundle's architecture was written by another version ({e}): export again"
            ) from e
