"""Open adapter files for a model, and refuse what is none or is for another."""

from collections.abc import Callable, Iterable
from pathlib import Path

from converter.adapters.adapter import Adapter
from converter.adapters.binding import AdaptedModel, Binding
from converter.adapters.choice import AdapterChoice
from converter.adapters.family import adapter_family
from converter.adapters.keys import adapter_kind, split_key
from converter.adapters.lcm import is_lcm
from converter.adapters.ledger import LEFT_OUT, Ledger, Status
from converter.adapters.peft_metadata import PeftSettings
from converter.checkpoint import Checkpoint
from converter.containers.opening import open_checkpoint
from converter.errors import InputError
from converter.files import blake3_of
from converter.model_files import SINGLE_FILE

NAMED = 3
"""How many keys an error names."""


def load_adapters(
    choices: Iterable[AdapterChoice],
    model: AdaptedModel,
    *,
    allow_unused: bool,
    content: Callable[[Path], str] = blake3_of,
) -> list[Adapter]:
    """Open adapters for a model; `content` tells the hash of a file.

    Raises InputError for a file that is no adapter or one of another family, for a scale of a part
    that the model lacks, and, without `allow_unused`, for keys that do not fit.
    """
    adapters = [load_adapter(choice, model, content) for choice in choices]
    for adapter in adapters:
        if not allow_unused:
            _check_fit(adapter.choice, adapter.ledger)
    return adapters


def load_adapter(
    choice: AdapterChoice, model: AdaptedModel, content: Callable[[Path], str] = blake3_of
) -> Adapter:
    """Open one adapter; what does not fit is in its ledger.

    Raises InputError for a file that is no adapter or one of another family, and for a scale of a
    part that the model lacks.
    """
    choice.check_names(model.modules.values())
    file = open_checkpoint(choice.path)
    peft = PeftSettings(file.path, file.metadata)
    _check_file(file, model.family)
    binding = Binding(choice, model, file, peft)
    modules = {split.module for split in map(split_key, file.tensors) if split is not None}
    return Adapter(
        choice=choice,
        content=content(file.path),
        file=file,
        changes=binding.changes,
        ledger=binding.ledger,
        lcm=is_lcm(modules, file.metadata),
        config=None if peft.config is None else content(peft.config),
    )


def _check_file(file: Checkpoint, family: str) -> None:
    path, names = file.path, file.tensors
    if adapter_kind(names) is None:
        first = next(iter(names), "none")
        if any(name.startswith(SINGLE_FILE) for name in names):
            raise InputError(
                f"{path}: a checkpoint, where a LoRA was expected (first key: {first}): "
                "pass it with -u"
            )
        raise InputError(
            f"{path}: a LoRA was expected and no key in it is one (first key: {first}): "
            "pass checkpoints with -u, LoRAs with -l, embeddings with --embedding"
        )
    trained_for = adapter_family(names)
    if trained_for not in (family, "unknown"):
        raise InputError(
            f"{path}: a LoRA for {trained_for}, and the checkpoint is {family}: "
            f"use a LoRA trained for {family}"
        )


def _check_fit(choice: AdapterChoice, ledger: Ledger) -> None:
    left = ledger.keys(*LEFT_OUT)
    if left:
        total = len(left) + len(ledger.keys(Status.USED))
        by_shape = len(ledger.keys(Status.WRONG_SHAPE))
        raise InputError(
            f"{choice.path}: {len(left)} of {total} keys do not fit this checkpoint "
            f"({by_shape} by shape), first {ledger.first(NAMED, *LEFT_OUT)}: use a LoRA made for "
            "this architecture, or --allow-unused to merge the rest"
        )
