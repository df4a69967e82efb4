"""SDXL base and what was distilled from it (SSD-1B, Segmind-Vega, KOALA).

Both text encoders give their penultimate hidden state without the final norm; the second also its
pooled, projected output. Constants: https://github.com/Stability-AI/generative-models,
`configs/inference/sd_xl_base.yaml`.
"""

from converter.families.base import Family
from converter.families.clip import ClipLayout
from converter.families.openclip import OpenClipLayout

SDXL = Family(
    name="sdxl",
    title="SDXL base",
    text_encoders={
        "text_encoder": ClipLayout(
            prefixes=("conditioner.embedders.0.transformer.text_model.",),
            activation="quick_gelu",
            clip_skip=1,
            final_norm=False,
        ),
        "text_encoder_2": OpenClipLayout(
            prefixes=("conditioner.embedders.1.model.",),
            activation="gelu",
            clip_skip=1,
            final_norm=False,
            projected=True,
        ),
    },
    attention_heads=None,
    scaling_factor=0.13025,
    time_ids=6,  # original size, crop, target size: two numbers each
)
