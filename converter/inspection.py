"""What a file is, from its header alone: kind, family, parts, hyper-parameters, dtypes."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.adapters.family import adapter_family
from converter.adapters.keys import adapter_kind, group_keys, ranks, split_key
from converter.adapters.lcm import is_lcm
from converter.architecture import CONTROLNET, Architecture
from converter.checkpoint import Checkpoint, TensorInfo
from converter.components import PART_OF, available, complete, rules
from converter.containers.opening import open_checkpoint
from converter.embeddings.formats import find_vectors
from converter.families.controlnet import DIFFERENCE, home, is_controlnet
from converter.families.detect import NOT_EXPORTED, checkpoint_family
from converter.families.prediction import Prediction, detect_prediction
from converter.families.registry import FAMILIES
from converter.families.rules import TensorRule
from converter.families.unet import UNET_PREFIX
from converter.families.vae import VAE_PREFIX
from converter.families.variants import variant
from converter.layouts.configs import config_problems, stated_prediction
from converter.layouts.parts import OPTIONS
from converter.model_files import Model, assemble

Tensors = Mapping[str, TensorInfo]

BARE = {
    "vae": (VAE_PREFIX, "encoder.conv_in.", "decoder.conv_in."),
    "text_encoder": ("text_model.encoder.", "cond_stage_model."),
}
"""Kinds of files that hold one part, and the name prefixes that mark them."""


@dataclass(frozen=True)
class ComponentFacts:
    """One part of a checkpoint: is it there, how many numbers, stored as what."""

    present: bool
    parameters: int
    dtype: str | None

    @classmethod
    def of(cls, tensors: Tensors) -> "ComponentFacts":
        """Summarise these tensors; the dtype is the one that holds most numbers."""
        counts: Counter[str] = Counter()
        for info in tensors.values():
            scaled = "" if info.scale is None else ", scaled"
            counts[info.dtype + scaled] += info.parameters
        dtype = counts.most_common(1)[0][0] if counts else None
        return cls(bool(tensors), counts.total(), dtype)


@dataclass(frozen=True)
class AdapterFacts:
    """What kind of adapter a file is, its ranks, and the family it was trained for."""

    kind: str
    rank: list[int]
    target_family: str
    modules: int


@dataclass(frozen=True)
class Inspection:
    """Everything that a header tells."""

    path: Path
    kind: str
    family: str
    container: str
    spellings: Mapping[str, str]
    has_ema: bool
    bytes: int
    components: Mapping[str, ComponentFacts]
    architecture: Architecture | None
    prediction: Prediction
    adapter: AdapterFacts | None
    problems: list[str]

    @property
    def variant(self) -> str:
        """What kind of its family it is (``base``, ``inpaint``, ``SSD-1B``); ``unknown``."""
        return "unknown" if self.architecture is None else variant(self.architecture)

    @property
    def missing(self) -> dict[str, str]:
        """Each missing part of a known family -> the option that supplies it."""
        if self.architecture is None or self.kind == CONTROLNET:
            return {}
        lacking = [c for c in complete(self.architecture) if c not in available(self.architecture)]
        return {part: OPTIONS[part] for part in dict.fromkeys(PART_OF[c] for c in lacking)}

    def to_json(self) -> dict[str, Any]:
        """As `sdconv inspect --json` prints it (schema 1)."""
        record: dict[str, Any] = {
            "schema": 1,
            "path": str(self.path),
            "kind": self.kind,
            "family": self.family,
            "container": self.container,
            "names": dict(self.spellings),
            "ema": self.has_ema,
            "missing": self.missing,
            "bytes": self.bytes,
            "components": {name: facts.__dict__ for name, facts in self.components.items()},
            "architecture": None if self.architecture is None else self.architecture.to_json(),
            "variant": self.variant,
            "prediction_type": {
                "value": self.prediction.type,
                "decided_by": self.prediction.reason,
                "zero_terminal_snr": self.prediction.zero_terminal_snr,
            },
            "problems": self.problems,
        }
        if self.adapter is not None:
            record["adapter"] = self.adapter.__dict__
        return record


def infer_architecture(tensors: Tensors, family: str) -> Architecture | None:
    """The architecture of a checkpoint; None for a family that is not exported."""
    return FAMILIES[family].infer(tensors) if family in FAMILIES else None


def inspect(path: Path, variant: str | None = None) -> Inspection:
    """Read the headers of a file or folder and tell what it is; InputError when none can.

    `variant` chooses among the precisions of a diffusers folder.
    """
    return inspect_model(assemble(open_checkpoint(path, variant)))


def inspect_model(model: Model) -> Inspection:
    """Tell what a model is whose headers were read."""
    tensors = model.file.tensors
    kind = _kind(model)
    if kind == "lora":
        family = adapter_family(tensors)
        components: dict[str, ComponentFacts] = {}
        architecture = None
        prediction = Prediction("unknown", False, "an adapter does not decide it")
    else:
        family = checkpoint_family(tensors)
        architecture = infer_architecture(tensors, family)
        components = _components(tensors, kind, architecture)
        stated = stated_prediction(model.file.configs)
        prediction = stated or detect_prediction(tensors, model.file.metadata, family, architecture)
    problems = tensor_problems(tensors, architecture, model.called) if kind != "lora" else []
    if family in NOT_EXPORTED:
        problems = [f"{family} is not exported: {NOT_EXPORTED[family]}"]
    return Inspection(
        path=model.file.path,
        kind=kind,
        family=family,
        container=model.file.container,
        spellings=model.spellings,
        has_ema=model.has_ema,
        bytes=sum(file.stat().st_size for file in model.roles),
        components=components,
        architecture=architecture,
        prediction=prediction,
        adapter=_adapter(model.file, family) if kind == "lora" else None,
        problems=[*problems, *config_problems(model.file.configs, architecture)],
    )


def _kind(model: Model) -> str:
    tensors, parts = model.file.tensors, model.spellings
    if adapter_kind(tensors) is not None:
        return "lora"
    of_unet = [name.startswith(UNET_PREFIX) for name in tensors]
    if len(parts) == 1 and (all(of_unet) or not any(of_unet)):
        return next(iter(parts))
    if any(of_unet):
        return "checkpoint"
    for kind, prefixes in BARE.items():
        if any(name.startswith(prefixes) for name in tensors):
            return kind
    return "unknown" if find_vectors(model.file) is None else "textual_inversion"


def _components(
    tensors: Tensors, kind: str, architecture: Architecture | None
) -> dict[str, ComponentFacts]:
    """What is there and, beside a ControlNet alone, what is missing of a model."""
    if architecture is None or kind not in ("checkpoint", *OPTIONS):
        return {}
    wanted = () if kind == CONTROLNET else complete(architecture)
    names = dict.fromkeys((*available(architecture), *wanted))
    prefixes = {c: FAMILIES[architecture.family].prefixes(c) for c in names}
    return {
        component: ComponentFacts.of({n: i for n, i in tensors.items() if n.startswith(mine)})
        for component, mine in prefixes.items()
    }


def _adapter(file: Checkpoint, family: str) -> AdapterFacts:
    tensors = file.tensors
    modules = group_keys(key for name in tensors if (key := split_key(name)) is not None)
    kind = "LCM-LoRA" if is_lcm(modules, file.metadata) else adapter_kind(tensors)
    return AdapterFacts(
        kind=kind or "unknown",
        rank=sorted(ranks({name: info.shape for name, info in tensors.items()})),
        target_family=family,
        modules=len(modules),
    )


def tensor_problems(
    tensors: Tensors,
    architecture: Architecture | None,
    called: Callable[[Mapping[str, str]], Mapping[str, str]] = lambda _: {},
) -> list[str]:
    """Check names and shapes against the family's table, both ways, all offenders named.

    `called` is that of `Model`: offenders have the names of the files themselves.
    """
    if architecture is None:
        return []
    wrong: list[tuple[str, TensorRule]] = []
    expected: set[str] = set()
    for component in available(architecture):
        for rule in rules(component, architecture, tensors):
            info = tensors.get(rule.source)
            if rule.source in expected:  # a fused tensor is checked once
                continue
            expected.add(rule.source)
            if (info is None and rule.needed) or (info and not rule.accepts(info.shape)):
                wrong.append((component, rule))
        if is_controlnet(component):
            expected.add(home(component) + DIFFERENCE)
    odd = _unknown(tensors, architecture, expected)
    if not wrong and not odd:
        return []
    own = called({rule.source: rule.name for _, rule in wrong})
    return [
        *(_problem(c, rule, own.get(rule.source), tensors.get(rule.source)) for c, rule in wrong),
        *(f"{_where(n, own, tensors[n])} belongs to no known layer" for n in odd),
    ]


def _unknown(tensors: Tensors, architecture: Architecture, expected: Collection[str]) -> list[str]:
    """The tensors within the parts that no table knows."""
    family = FAMILIES[architecture.family]
    owned = tuple(p for c in available(architecture) for p in family.prefixes(c))
    unused = tuple(family.unused)
    return [
        n for n in tensors if n.startswith(owned) and n not in expected and not n.startswith(unused)
    ]


def _problem(component: str, rule: TensorRule, own: str | None, info: TensorInfo | None) -> str:
    name = f"{component}: {own or rule.source}"
    if info is None:
        return f"{name} is missing"
    return f"{name} is {list(info.shape)}, {list(rule.stored_shape)} was expected"


def _where(name: str, own: Mapping[str, str], info: TensorInfo) -> str:
    """Name a tensor and its shape; of several files of one name also the folder."""
    there = f" of {info.file.parent.name}/{info.file.name}" if name in own else ""
    return f"{own.get(name, name)} {list(info.shape)}{there}"
