"""Every hyper-parameter of a model, as inferred from names and shapes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self


class _Json:
    """Plain JSON values for frozen dataclasses of numbers, strings, booleans and tuples."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values (tuples become lists); `from_json` reads it back."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()  # type: ignore[call-overload]
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises TypeError for unknown fields."""
        return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in data.items()})


@dataclass(frozen=True)
class UNetArchitecture(_Json):
    """The denoiser. Tuples run over levels, from full latent resolution down.

    `attention_heads` is the number of heads at every level. It leaves no trace in the weights:
    it is the family's constant.
    """

    in_channels: int
    out_channels: int
    block_channels: tuple[int, ...]
    layers_per_block: int
    attention_levels: tuple[bool, ...]
    context_dim: int
    attention_heads: int


@dataclass(frozen=True)
class TextEncoderArchitecture(_Json):
    """A CLIP text transformer. `heads` is hidden_size / 64, as in every CLIP that was published."""

    vocabulary: int
    positions: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    activation: str


@dataclass(frozen=True)
class VaeArchitecture(_Json):
    """The KL autoencoder. `layers_per_block` counts residual blocks per encoder level."""

    latent_channels: int
    block_channels: tuple[int, ...]
    layers_per_block: int
    scaling_factor: float


@dataclass(frozen=True)
class Architecture:
    """A family and the parts that a file holds; a part is None when the file lacks it."""

    family: str
    unet: UNetArchitecture | None
    text_encoder: TextEncoderArchitecture | None
    vae: VaeArchitecture | None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` reads it back."""
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "family"}
        return {
            "family": self.family,
            **{name: None if part is None else part.to_json() for name, part in parts.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Architecture":
        """Read what `to_json` wrote."""
        unet, text, vae = data["unet"], data["text_encoder"], data["vae"]
        return cls(
            family=data["family"],
            unet=None if unet is None else UNetArchitecture.from_json(unet),
            text_encoder=None if text is None else TextEncoderArchitecture.from_json(text),
            vae=None if vae is None else VaeArchitecture.from_json(vae),
        )
