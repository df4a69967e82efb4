"""SDXL refiner: SDXL's second text encoder alone, and an aesthetic score among the time ids.

Constants: https://github.com/Stability-AI/generative-models,
`configs/inference/sd_xl_refiner.yaml`.
"""

from converter.families.base import Family
from converter.families.sdxl import big_g

SDXL_REFINER = Family(
    name="sdxl-refiner",
    title="SDXL refiner",
    text_encoders={
        # diffusers' name for it, though the file holds it as the first of one
        "text_encoder_2": big_g(0)
    },
    attention_heads=None,
    scaling_factor=0.13025,
    time_ids=5,  # original size, crop: two numbers each; aesthetic score
)
