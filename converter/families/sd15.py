"""Stable Diffusion 1.x, distilled ones (BK-SDM, tiny-sd) and full LCMs included."""

from converter.families.base import Family
from converter.families.clip import ClipLayout

SD15 = Family(
    name="sd15",
    title="Stable Diffusion 1.x",
    text_encoders={
        "text_encoder": [
            ClipLayout(
                prefixes=(
                    "cond_stage_model.transformer.text_model.",
                    "cond_stage_model.transformer.",  # written by older tools
                ),
                activation="quick_gelu",
            )
        ]
    },
    attention_heads=8,
    scaling_factor=0.18215,
)
