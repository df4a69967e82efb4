"""Stable Diffusion 2.x: OpenCLIP ViT-H, whose penultimate layer goes through the final norm.

Constants: https://github.com/Stability-AI/stablediffusion, `configs/stable-diffusion/v2-*.yaml`.
"""

from converter.families.base import Family
from converter.families.clip import ClipLayout
from converter.families.openclip import OpenClipLayout

SD2 = Family(
    name="sd2",
    title="Stable Diffusion 2.x",
    text_encoders={
        "text_encoder": [
            OpenClipLayout(prefixes=("cond_stage_model.model.",), activation="gelu", clip_skip=1),
            # diffusers leaves out the layer that is not used
            ClipLayout(prefixes=("cond_stage_model.transformer.text_model.",), activation="gelu"),
        ]
    },
    attention_heads=None,
    scaling_factor=0.18215,
    prediction="unknown",  # the base models predict epsilon, the 768-pixel ones v
)
