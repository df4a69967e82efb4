"""Every family and variant at small widths: the published topology, every code path, few numbers.

SDXL's ten transformer layers per block become two: tracing takes time by the layer.
"""

from dataclasses import replace

from converter.architecture import (
    Architecture,
    TextEncoderArchitecture,
    UNetArchitecture,
    VaeArchitecture,
)
from converter.families.published import SD2, SD2_UNET, SD15, SD15_UNET, SDXL, SDXL_UNET

_CLIP = TextEncoderArchitecture(49408, 77, 64, 256, 2, 1, "quick_gelu")
_VAE = VaeArchitecture(4, (32, 32, 64, 64), 1, 0.18215)

SMALL = Architecture(
    "sd15",
    replace(SD15_UNET, block_channels=(32, 64, 96, 128), context_dim=64),
    _CLIP,
    _VAE,
)
"""SD1.5's topology at a small width: 14 million parameters, every code path of the real thing."""

_SD2_CLIP = TextEncoderArchitecture(49408, 77, 128, 256, 3, 2, "gelu", clip_skip=1)
_SD2 = Architecture(
    "sd2",
    replace(
        SD2_UNET,
        block_channels=(64, 64, 128, 128),
        context_dim=128,
        attention_heads=(1, 1, 2, 2),
    ),
    _SD2_CLIP,
    _VAE,
)

_SDXL_CLIP = replace(_CLIP, layers=3, clip_skip=1, final_norm=False)
_SDXL_CLIP_2 = replace(_SD2_CLIP, final_norm=False, projection_dim=128)
_SDXL_VAE = replace(_VAE, scaling_factor=0.13025)
_SDXL_UNET = replace(
    SDXL_UNET,
    block_channels=(64, 64, 128),
    down_depths=((0, 0), (1, 1), (2, 2)),
    middle_depth=2,
    up_depths=((2, 2, 2), (1, 1, 1), (0, 0, 0)),
    context_dim=64 + 128,
    attention_heads=(1, 1, 2),
    pooled_dim=128,
)
_REFINER_UNET = replace(
    _SDXL_UNET,
    block_channels=(64, 64, 128, 128),
    down_depths=((0, 0), (1, 1), (1, 1), (0, 0)),
    middle_depth=1,
    up_depths=((0, 0, 0), (1, 1, 1), (1, 1, 1), (0, 0, 0)),
    context_dim=128,
    attention_heads=(1, 1, 2, 2),
    time_ids=5,
)


def _sdxl(unet: UNetArchitecture) -> Architecture:
    return Architecture("sdxl", unet, _SDXL_CLIP, _SDXL_VAE, _SDXL_CLIP_2)


def _with_unet(model: Architecture, **changes: object) -> Architecture:
    assert model.unet is not None
    return replace(model, unet=replace(model.unet, **changes))  # type: ignore[arg-type]


_BK_SDM = _with_unet(
    SMALL, down_depths=((1,), (1,), (1,), (0,)), up_depths=((0, 0), (1, 1), (1, 1), (1, 1))
)
_BK_SDM_TINY = _with_unet(
    SMALL,
    block_channels=(32, 64, 96),
    down_depths=((1,), (1,), (1,)),
    middle_depth=None,
    up_depths=((1, 1), (1, 1), (1, 1)),
    attention_heads=(8, 8, 8),
)

SHALLOW = _with_unet(
    SMALL,
    block_channels=(64, 128),
    down_depths=((1,), (0,)),
    middle_depth=1,
    up_depths=((0, 0), (1, 1)),
    attention_heads=(8, 8),
)
SHALLOW_SDXL = _with_unet(
    _sdxl(_SDXL_UNET),
    block_channels=(64, 128),
    down_depths=((0,), (2,)),
    middle_depth=2,
    up_depths=((2, 2), (0, 0)),
    attention_heads=(1, 2),
)
"""Two levels of one block each: every kind of block, and a compiler is done in a fifth of the time.

No narrower: tpu-mlir turns 8-bit weights of fewer than 64 inputs back into 16 bits.
"""

MODELS = {
    "sd15": SMALL,
    "sd15-inpaint": _with_unet(SMALL, in_channels=9),
    "sd15-pix2pix": _with_unet(SMALL, in_channels=8),
    "sd15-lcm": _with_unet(SMALL, timestep_cond_dim=256),
    "bk-sdm-base": _BK_SDM,
    "bk-sdm-small": _with_unet(_BK_SDM, middle_depth=None),
    "bk-sdm-tiny": _BK_SDM_TINY,
    "bk-sdm-tiny-lcm": _with_unet(_BK_SDM_TINY, timestep_cond_dim=256),
    "sd2": _SD2,
    "sd2-inpaint": _with_unet(_SD2, in_channels=9),
    "sd2-pix2pix": _with_unet(_SD2, in_channels=8),
    "sdxl": _sdxl(_SDXL_UNET),
    "sdxl-inpaint": _sdxl(replace(_SDXL_UNET, in_channels=9)),
    "sdxl-pix2pix": _sdxl(replace(_SDXL_UNET, in_channels=8)),
    "sdxl-lcm": _sdxl(replace(_SDXL_UNET, timestep_cond_dim=256)),
    "sdxl-refiner": Architecture("sdxl-refiner", _REFINER_UNET, None, _SDXL_VAE, _SDXL_CLIP_2),
    "ssd-1b": _sdxl(
        replace(
            _SDXL_UNET,
            down_depths=((0, 0), (2, 2), (4, 4)),
            middle_depth=0,
            up_depths=((4, 4, 10), (2, 1, 1), (0, 0, 0)),
        )
    ),
    "segmind-vega": _sdxl(replace(_SDXL_UNET, middle_depth=0)),
    "koala-700m": _sdxl(
        replace(
            _SDXL_UNET,
            down_depths=((0,), (2,), (5,)),
            middle_depth=None,
            up_depths=((5, 5), (2, 2), (0, 0)),
        )
    ),
    "koala-1b": _sdxl(
        replace(
            _SDXL_UNET,
            down_depths=((0,), (2,), (6,)),
            middle_depth=6,
            up_depths=((6, 6), (2, 2), (0, 0)),
        )
    ),
    "sd15-full": SD15,
    "sd2-full": SD2,
    "sdxl-full": SDXL,
}
"""Name -> architecture. The full-size ones weigh 2.1, 2.6 and 6.9 GB."""
