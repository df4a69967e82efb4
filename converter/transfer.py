"""Carry a ControlNet over to another checkpoint: ControlNet - base UNet + this checkpoint's UNet.

A ControlNet starts as a copy of the way down of the UNet that it is trained beside. What training
changed in that copy is added to another UNet's way down (lllyasviel/ControlNet, discussion 12);
the hint's convolutions and the exits, which no UNet has, stay. Files that hold only the change are
marked by a tensor named ``difference``.
"""

from collections.abc import Mapping
from dataclasses import replace

from converter.checkpoint import Checkpoint, TensorInfo
from converter.errors import InputError
from converter.families.controlnet import DIFFERENCE, EXITS, controlnets_in, home
from converter.families.unet import UNET_PREFIX


def transfer_controlnets(model: Checkpoint, base: Checkpoint | None) -> Checkpoint:
    """The model with its ControlNets carried over to its UNet; nothing is read yet.

    `base` is the model that they were trained beside; None leaves those alone that are no
    differences. Raises InputError where a UNet that this takes is missing or does not fit.
    """
    tensors = dict(model.tensors)
    homes = [home(name) for name in controlnets_in(tensors)]
    if base is not None and not homes:
        raise InputError(
            f"--controlnet-merge {base.path}: there is no ControlNet to carry over: name one with "
            "--controlnet FILE"
        )
    for prefix in homes:
        difference = tensors.pop(prefix + DIFFERENCE, None) is not None
        if difference and base is not None:
            raise InputError(
                f"--controlnet-merge {base.path}: a ControlNet is given that is stored as a "
                "difference from its base already: leave --controlnet-merge out"
            )
        if not difference and base is None:
            continue
        for name in _below(tensors, prefix):
            if not name.startswith(tuple(prefix + e for e in EXITS)):
                copied = UNET_PREFIX + name.removeprefix(prefix)
                info = tensors[name]
                added = _counterpart(info, model, copied)
                subtracted = () if base is None else (_counterpart(info, base, copied),)
                tensors[name] = replace(info, added=(added,), subtracted=subtracted)
    return model.with_tensors(tensors)


def _below(tensors: Mapping[str, TensorInfo], prefix: str) -> list[str]:
    return [name for name in tensors if name.startswith(prefix)]


def _counterpart(info: TensorInfo, model: Checkpoint, name: str) -> TensorInfo:
    """The tensor of `model` that a ControlNet's one is a copy of."""
    found = model.tensors.get(name)
    if found is None:
        raise InputError(
            f"{model.path}: no {name}, which a ControlNet that is carried over needs: give a whole "
            "checkpoint of the ControlNet's family"
        )
    if found.parameters != info.parameters:
        raise InputError(
            f"{model.path}: {name} is {list(found.shape)}, and the ControlNet's copy of it "
            f"{list(info.shape)}: it was trained beside another kind of UNet"
        )
    return found
