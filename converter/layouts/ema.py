"""EMA copies inside a single file: the averaged UNet, beside the one that training left.

Latent-diffusion stores the copy of ``model.diffusion_model.out.2.weight`` as
``model_ema.diffusion_modelout2weight`` (`ldm/modules/ema.py`: the module's name without dots).
"""

from collections.abc import Mapping

from converter.checkpoint import Checkpoint, TensorInfo
from converter.errors import InputError
from converter.families.unet import UNET_PREFIX

EMA = "model_ema."


def ema_copies(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Map each name of the UNet that has an EMA copy to the copy."""
    copies = {
        name: EMA + name.removeprefix("model.").replace(".", "")
        for name in tensors
        if name.startswith(UNET_PREFIX)
    }
    return {name: tensors[copy] for name, copy in copies.items() if copy in tensors}


def choose_ema(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with every UNet tensor replaced by its EMA copy.

    Raises InputError when one has no copy.
    """
    copies = ema_copies(checkpoint.tensors)
    unet = [name for name in checkpoint.tensors if name.startswith(UNET_PREFIX)]
    if not copies or len(copies) < len(unet):
        without = next((name for name in unet if name not in copies), "no UNet")
        raise InputError(
            f"{checkpoint.path}: {len(copies)} of {len(unet)} UNet tensors have an EMA copy "
            f"(none for {without}): leave --ema out"
        )
    return checkpoint.with_tensors({**checkpoint.tensors, **copies})
