"""Which family a set of tensor names and shapes belongs to. File names are never looked at."""

from collections.abc import Mapping

from converter.checkpoint import TensorInfo

UNET = "model.diffusion_model."
EPSILON_BY_FAMILY = ("sd15", "sdxl", "sdxl-refiner")


def checkpoint_family(tensors: Mapping[str, TensorInfo]) -> str:
    """``sd15``, ``sd2``, ``sdxl``, ``sdxl-refiner``, or ``unknown``."""
    stem = tensors.get(f"{UNET}input_blocks.0.0.weight")
    if stem is None:
        if any(name.startswith("cond_stage_model.transformer.") for name in tensors):
            return "sd15"
        return "unknown"
    if f"{UNET}label_emb.0.0.weight" in tensors:
        return "sdxl-refiner" if stem.shape[0] == 384 else "sdxl"
    projection = next((i for n, i in tensors.items() if n.endswith(".1.proj_in.weight")), None)
    if projection is None:
        return "unknown"
    return "sd15" if len(projection.shape) == 4 else "sd2"


def prediction_type(tensors: Mapping[str, TensorInfo], family: str) -> tuple[str, str]:
    """Return (``epsilon``, ``v_prediction`` or ``unknown``; how that was decided)."""
    if "v_pred" in tensors:
        return "v_prediction", "the file holds the marker tensor 'v_pred'"
    if family in EPSILON_BY_FAMILY:
        return (
            "epsilon",
            f"family {family} is trained with epsilon prediction; no marker says other",
        )
    return "unknown", "the weights of this family do not tell; it must be stated"
