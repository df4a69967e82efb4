"""The published full-size architectures: what templates ship for, and others are variations of."""

from dataclasses import replace

from converter.architecture import (
    Architecture,
    TextEncoderArchitecture,
    UNetArchitecture,
    VaeArchitecture,
)

SD15_UNET = UNetArchitecture(
    in_channels=4,
    out_channels=4,
    block_channels=(320, 640, 1280, 1280),
    down_depths=((1, 1), (1, 1), (1, 1), (0, 0)),
    middle_depth=1,
    up_depths=((0, 0, 0), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    context_dim=768,
    attention_heads=(8, 8, 8, 8),
)
CLIP_L = TextEncoderArchitecture(49408, 77, 768, 3072, 12, 12, "quick_gelu")
CLIP_H = TextEncoderArchitecture(49408, 77, 1024, 4096, 24, 16, "gelu", clip_skip=1)
CLIP_BIG_G = TextEncoderArchitecture(
    49408, 77, 1280, 5120, 32, 20, "gelu", clip_skip=1, final_norm=False, projection_dim=1280
)
KL_F8 = VaeArchitecture(4, (128, 256, 512, 512), 2, 0.18215)

SD15 = Architecture("sd15", SD15_UNET, CLIP_L, KL_F8)
"""The architecture of every full-size SD1.x checkpoint."""

SD15_CLIP_SKIP_2 = replace(SD15, text_encoder=replace(CLIP_L, clip_skip=1))
"""SD1.x as most of its anime models are used: the layer before the last, through the norm."""

SD2_UNET = replace(
    SD15_UNET, context_dim=1024, attention_heads=(5, 10, 20, 20), linear_projection=True
)
SD2 = Architecture("sd2", SD2_UNET, CLIP_H, KL_F8)
"""The architecture of every full-size SD2.x checkpoint."""

SDXL_UNET = UNetArchitecture(
    in_channels=4,
    out_channels=4,
    block_channels=(320, 640, 1280),
    down_depths=((0, 0), (2, 2), (10, 10)),
    middle_depth=10,
    up_depths=((10, 10, 10), (2, 2, 2), (0, 0, 0)),
    context_dim=2048,
    attention_heads=(5, 10, 20),
    linear_projection=True,
    pooled_dim=1280,
    time_ids=6,
)
SDXL_CLIP_L = replace(CLIP_L, clip_skip=1, final_norm=False)
SDXL = Architecture(
    "sdxl",
    SDXL_UNET,
    SDXL_CLIP_L,
    replace(KL_F8, scaling_factor=0.13025),
    CLIP_BIG_G,
)
"""The architecture of full-size SDXL base."""

SDXL_POOLED = replace(SDXL, text_encoder=replace(SDXL_CLIP_L, pooled=True))
"""SDXL whose first text encoder gives a pooled vector too, as phones take it."""
