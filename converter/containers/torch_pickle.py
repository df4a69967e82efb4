"""What the calls in torch's pickles mean: tensors as places in storages, state dicts as dicts.

Format: `torch/_utils.py` (`_rebuild_tensor_v2`, `_rebuild_parameter`) and `torch/serialization.py`
(persistent ids ``('storage', type, key, device, count)``) of https://github.com/pytorch/pytorch.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.checkpoint import DTYPES, TensorInfo
from converter.containers.pickle_program import (
    Called,
    Global,
    PersistentId,
    Placeholder,
    ProgramError,
    Stateful,
)
from converter.errors import InputError

STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
"""Classes of torch -> the dtype of their elements."""

UNTYPED = {
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
}
"""Dtypes that torch stores in untyped storages, by torch's names."""

MOST_TENSORS = 100_000
DEEPEST = 8
"""How many dicts inside each other are looked into."""


@dataclass(frozen=True)
class Storage:
    """A persistent id of torch: `count` elements (of an untyped storage: bytes) under `key`."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a view of a storage; offset and strides in elements. `dtype` None: unknown."""

    storage: Storage
    dtype: str | None
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Parameters(dict[str, Any], Stateful):
    """A `torch.nn.ParameterDict`: an object whose state holds named tensors."""

    def set_state(self, state: object) -> None:
        """Take the tensors."""
        named = state.get("_parameters") if isinstance(state, dict) else None
        self.update(named if isinstance(named, dict) else {})


def build(called: Called, arguments: tuple[Any, ...]) -> object:
    """Give a call its meaning; a `Placeholder` for everything that is neither tensor nor dict.

    Raises ProgramError for a tensor that is not described as torch does.
    """
    made: object = None
    function = _class_of(called)
    if function == Global("collections", "OrderedDict"):
        made = {} if not arguments else None
    elif function == Global("torch.nn.modules.container", "ParameterDict"):
        made = Parameters()
    elif function.module == "torch._utils":
        if function.name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            made = _tensor(function.name, arguments)
        elif function.name.startswith("_rebuild_parameter") and arguments:
            made = arguments[0]
    return Placeholder(function) if made is None else made


def _class_of(called: Called) -> Global:
    """Take the name of a class; before torch 1.6 it came with its source, as a persistent id."""
    if isinstance(called, Global):
        return called
    match called.value:
        case ("module", Global() as function, *_):
            return function
    return Global("", "")


def _tensor(function: str, arguments: tuple[Any, ...]) -> StoredTensor:
    if len(arguments) < 4:
        raise ProgramError(f"a call of {function} with {len(arguments)} arguments")
    reference, offset, shape, strides = arguments[:4]
    numbers = _naturals(shape) and _naturals(strides) and _naturals((offset,))
    if not numbers or len(shape) != len(strides):
        raise ProgramError("a tensor whose shape, strides or offset are no whole numbers")
    storage = _storage(reference)
    dtype = STORAGES.get(storage.kind)
    if function.endswith("v3") and len(arguments) > 6 and isinstance(arguments[6], Global):
        dtype = UNTYPED.get(arguments[6].name)
    return StoredTensor(storage, dtype, offset, shape, strides)


def _storage(reference: object) -> Storage:
    value = reference.value if isinstance(reference, PersistentId) else None
    if isinstance(value, tuple) and len(value) >= 5 and value[0] == "storage":
        kind, key, count, *view = value[1], value[2], *value[4:]
        whole = not view or view[0] is None  # before torch 0.4 a storage could be part of another
        if isinstance(kind, Global) and isinstance(key, str) and _naturals((count,)) and whole:
            return Storage(kind.name, key, count)
    raise ProgramError("a tensor without a storage of its own")


def _naturals(values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(v, int) and v >= 0 for v in values)


def state_dict(path: Path, value: object) -> dict[str, StoredTensor]:
    """Find the tensors of a checkpoint: its ``state_dict``, else those it holds itself.

    Those of dicts inside it are named ``outer.inner``. Raises InputError when there are none.
    """
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    tensors: dict[str, StoredTensor] = {}
    for name, tensor in _tensors_in(value, (), set()):
        tensors[name] = tensor
        if len(tensors) > MOST_TENSORS:
            raise InputError(f"{path}: more than {MOST_TENSORS} tensors: no checkpoint has so many")
    if not tensors:
        raise InputError(
            f"{path}: a pickle without a state dict of tensors: a .ckpt, .pt or .bin checkpoint "
            "was expected (a TorchScript or a whole pickled module is none); give another file"
        )
    return tensors


def _tensors_in(
    value: object, path: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[str, StoredTensor]]:
    """The tensors of a dict and of those inside it, each dict once."""
    if isinstance(value, StoredTensor):
        yield ".".join(path), value
    elif isinstance(value, dict) and id(value) not in seen and len(path) <= DEEPEST:
        seen.add(id(value))
        for key, entry in value.items():
            yield from _tensors_in(entry, (*path, key), seen)


def texts(value: object) -> dict[str, str]:
    """The texts beside the tensors, as what stands in a safetensors file's metadata."""
    entries = value.items() if isinstance(value, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, str)}


def place(
    path: Path, name: str, tensor: StoredTensor, storages: Mapping[str, tuple[int, int]]
) -> TensorInfo:
    """Find a tensor's bytes; `storages` maps keys to the first byte in the file and the length.

    Raises InputError for a tensor that does not lie within its storage.
    """
    if tensor.dtype is None:
        raise InputError(
            f"{path}: tensor {name!r} is in a {tensor.storage.kind}, which is not known here; "
            f"known are {', '.join(STORAGES)} and {', '.join(UNTYPED)}"
        )
    if tensor.storage.key not in storages:
        raise InputError(f"{path}: the bytes of tensor {name!r} are missing: download it again")
    begin, length = storages[tensor.storage.key]
    width = DTYPES[tensor.dtype].itemsize
    count = math.prod(tensor.shape)
    reach = zip(tensor.shape, tensor.strides, strict=True)
    span = 1 + sum((extent - 1) * stride for extent, stride in reach) if count else 0
    if (tensor.offset + span) * width > length or count > span:
        raise InputError(
            f"{path}: tensor {name!r} of shape {list(tensor.shape)} and strides "
            f"{list(tensor.strides)} does not fit its storage of {length} bytes: damaged"
        )
    first = begin + tensor.offset * width
    strides = None if _row_major(tensor) else tensor.strides
    return TensorInfo(tensor.dtype, tensor.shape, first, first + span * width, path, strides)


def _row_major(tensor: StoredTensor) -> bool:
    step = 1
    for extent, stride in zip(tensor.shape[::-1], tensor.strides[::-1], strict=True):
        if extent != 1 and stride != step:
            return False
        step *= extent
    return True
