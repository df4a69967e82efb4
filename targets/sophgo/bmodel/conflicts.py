"""What cannot become one bmodel, said by name: chips, networks and ports that do not go together.

The vendor's tool refuses the same (tpu-mlir, lib/Builder/bmodel.cpp, `ModelGen::AddNet`), where it
does not leave out what it cannot keep.
"""

from collections.abc import Sequence
from itertools import combinations

from converter.errors import InputError
from targets.sophgo.bmodel.reading import Bmodel, stages
from targets.sophgo.bmodel.schema import Model, NetParameter, Tensor


def check_combinable(bmodels: Sequence[Bmodel]) -> None:
    """Raise InputError for the first two files, or the first one, that cannot be combined."""
    for bmodel in bmodels:
        reason = _alone(bmodel)
        if reason:
            raise InputError(f"{bmodel.path}: cannot be combined with other files: {reason}")
    for one, other in combinations(bmodels, 2):
        reason = _together(one.model, other.model)
        if reason:
            raise InputError(f"{other.path}: cannot be combined with {one.path}: {reason}")


def _alone(bmodel: Bmodel) -> str:
    model = bmodel.model
    if len(bmodel.weights) > 1:
        return f"it holds {len(bmodel.weights)} weight regions: give the files it was made from"
    if any(net.cascade for net in model.net):
        return "it is made for several devices"
    library = model.cpuop_module.binary if model.cpuop_module else None
    if any(binary and binary.size for binary in (library, model.lib_backend)):
        return "it brings a library of its own"
    return ""


def _together(one: Model, other: Model) -> str:
    if one.chip != other.chip:
        return f"made for {other.chip}, not {one.chip}"
    modes = {net.name: net.addr_mode for net in one.net}
    for net in other.net:
        if modes.get(net.name, net.addr_mode) != net.addr_mode:
            return f"{net.name} has another address mode"
    for name, stage in stages(one):
        for other_name, other_stage in stages(other):
            reason = _as_stages(stage, other_stage) if name == other_name else ""
            if reason:
                return f"{name}: {reason}"
    return ""


def _as_stages(one: NetParameter, other: NetParameter) -> str:
    """Why the second cannot be another size of the first."""
    if _dynamic(one) != _dynamic(other):
        return "one takes any size and the other does not"
    if (len(one.sub_net) > 1) != (len(other.sub_net) > 1):
        return "one is divided into parts and the other is not"
    if [t.name for t in one.output_tensor] != [t.name for t in other.output_tensor]:
        return "the outputs have other names"
    if [_port(t) for t in one.input_tensor] != [_port(t) for t in other.input_tensor]:
        return "the inputs have other names or types"
    if [t.shape for t in one.input_tensor] == [t.shape for t in other.input_tensor]:
        return "both have inputs of the same shapes: give each size once"
    return ""


def _dynamic(stage: NetParameter) -> tuple[int, int, int]:
    return stage.is_dynamic, stage.n_dynamic, stage.h_w_dynamic


def _port(tensor: Tensor) -> tuple[str, int, float, int]:
    return tensor.name, tensor.data_type, tensor.scale, tensor.zero_point
