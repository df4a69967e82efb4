"""What a recipe says, as frozen dataclasses: a field here is a key there.

    export:                       # what `sdconv export` takes
      checkpoint: mini.safetensors
      loras: ["style.safetensors:0.8"]
    compile:                      # one entry a target, what `sdconv compile` takes
      - target: bm1684x
        sizes: [64x64, 128x64]
        precision: {vae_decoder: bf16}
    validate:                     # what `sdconv validate` takes, and thresholds of the recipe's own
      prompts: [a red circle on a blue background]
      thresholds:
        - {precision: bf16, component: vae_decoder, psnr_db: 28, reason: "..."}
    output: build                 # bundle and artifacts go below it

Files are paths, from the recipe's folder, or addresses.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from converter.sizes import Size
from validate.base import Level
from validate.overrides import Override


@dataclass(frozen=True)
class Export:
    """The keys of `converter.export_record`, files as a user writes them."""

    checkpoint: str | None = None
    unet: str | None = None
    vae: str | None = None
    text_encoder: str | None = None
    text_encoder_2: str | None = None
    controlnets: tuple[str, ...] = ()
    controlnet_merge: str | None = None
    variant: str | None = None
    ema: bool = False
    loras: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    clip_skip: int | None = None
    profile: str | None = None
    batch: int | None = None
    components: tuple[str, ...] = ()
    prediction: str | None = None
    zero_terminal_snr: bool = False
    allow_unused: bool = False
    link: bool = False
    family: str | None = None


@dataclass(frozen=True)
class Compilation:
    """What is compiled for one target."""

    target: str
    sizes: tuple[Size, ...] = ()
    components: tuple[str, ...] = ()
    precision: Mapping[str, str] = field(default_factory=dict)
    batch: int | None = None
    effort: str = "normal"
    calibration: str | None = None
    quantize_tables: Mapping[str, str] = field(default_factory=dict)
    static: bool = False


@dataclass(frozen=True)
class Validation:
    """How it is judged. `emulator_budget` is in minutes, as on the command line."""

    prompts: tuple[str, ...] = ()
    negative: str | None = None
    scheduler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    noise: str | None = None
    early: int = 0
    hints: tuple[str, ...] = ()
    levels: tuple[Level, ...] = ()
    recogniser: str | None = None
    attribute: bool = False
    emulator_budget: float = 10.0
    thresholds: tuple[Override, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """All of it. `output` is the folder that the bundle and the artifacts go into."""

    export: Export
    compile: tuple[Compilation, ...] = ()
    validate: Validation = field(default_factory=Validation)
    output: str = "build"


def given(section: Any) -> dict[str, Any]:
    """The fields of a section that say something else than nothing at all."""
    values = {}
    for one in fields(section):
        value = getattr(section, one.name)
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        if value != default:
            values[one.name] = value
    return values
