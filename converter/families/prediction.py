"""What a UNet predicts, and whether its schedule ends in pure noise."""

from collections.abc import Mapping
from dataclasses import dataclass

from converter.architecture import Architecture
from converter.checkpoint import TensorInfo
from converter.families.registry import FAMILIES

PREDICTION_TYPES = ("epsilon", "v_prediction")
MODELSPEC = {"epsilon": "epsilon", "v": "v_prediction"}
"""Values of the metadata key ``modelspec.prediction_type``
(https://github.com/Stability-AI/ModelSpec)."""

INPAINT_CHANNELS = 9


@dataclass(frozen=True)
class Prediction:
    """``epsilon``, ``v_prediction`` or ``unknown``; zero terminal SNR or not; how decided."""

    type: str
    zero_terminal_snr: bool
    reason: str


def detect_prediction(
    tensors: Mapping[str, TensorInfo],
    metadata: Mapping[str, str],
    family: str,
    architecture: Architecture | None,
) -> Prediction:
    """Look for a marker: a tensor, then the metadata, then what the family always does.

    The empty tensors ``v_pred`` and ``ztsnr`` are written by trainers of SDXL.
    """
    terminal = "ztsnr" in tensors
    if "v_pred" in tensors:
        return Prediction("v_prediction", terminal, "the file holds the marker tensor 'v_pred'")
    stated = MODELSPEC.get(metadata.get("modelspec.prediction_type", ""))
    if stated is not None:
        return Prediction(stated, terminal, "the file's metadata says so")
    unet = None if architecture is None else architecture.unet
    if family == "sd2" and unet is not None and unet.in_channels == INPAINT_CHANNELS:
        return Prediction("epsilon", terminal, "the inpainting model of sd2 predicts epsilon")
    if family in FAMILIES and FAMILIES[family].prediction != "unknown":
        value = FAMILIES[family].prediction
        reason = f"family {family} is trained with {value} prediction; no marker says other"
        return Prediction(value, terminal, reason)
    reason = "the weights of this family do not tell; state it with 'export --prediction'"
    return Prediction("unknown", terminal, reason)
