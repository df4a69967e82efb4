"""SDXL base and what was distilled from it (SSD-1B, Segmind-Vega, KOALA).

Both text encoders give their penultimate hidden state without the final norm; the second also its
pooled, projected output. Constants: https://github.com/Stability-AI/generative-models,
`configs/inference/sd_xl_base.yaml`.
"""

from converter.families.base import Family
from converter.families.clip import ClipLayout
from converter.families.openclip import OpenClipLayout
from converter.families.text import TextLayout


def big_g(index: int) -> list[TextLayout]:
    """OpenCLIP ViT-bigG as embedder `index`: in its own layout, and as transformers names it."""
    prefix = f"conditioner.embedders.{index}."
    return [
        kind((prefix + names,), "gelu", clip_skip=1, final_norm=False, projected=True)
        for kind, names in ((OpenClipLayout, "model."), (ClipLayout, "transformer.text_model."))
    ]


SDXL = Family(
    name="sdxl",
    title="SDXL base",
    text_encoders={
        "text_encoder": [
            ClipLayout(
                prefixes=("conditioner.embedders.0.transformer.text_model.",),
                activation="quick_gelu",
                clip_skip=1,
                final_norm=False,
            )
        ],
        "text_encoder_2": big_g(1),
    },
    attention_heads=None,
    scaling_factor=0.13025,
    time_ids=6,  # original size, crop, target size: two numbers each
)
