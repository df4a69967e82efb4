"""Find the tensor of every key of an adapter file, and enter into the ledger what became of it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from converter.adapters import dora
from converter.adapters.adapter import TensorChange
from converter.adapters.base import Kind, Shape, Shapes
from converter.adapters.choice import AdapterChoice
from converter.adapters.family import key_family
from converter.adapters.keys import (
    PREFIXES,
    AdapterKey,
    ModuleKeys,
    Table,
    component_of,
    group_keys,
    module_table,
    split_key,
)
from converter.adapters.ledger import Ledger, Status
from converter.adapters.peft_metadata import PeftSettings
from converter.adapters.registry import KINDS
from converter.checkpoint import Checkpoint
from converter.containers.adapter_folder import CONFIG
from converter.families.rules import TensorRule

Parts = Mapping[str, str]
"""Part -> key."""


@dataclass(frozen=True)
class AdaptedModel:
    """What adapters are merged into: tensor shapes and module spellings of each component.

    `idle` holds, per component, the tensors on which no output depends (`TensorRule.needed`).
    """

    family: str
    exported: Sequence[str]
    shapes: Mapping[str, Mapping[str, Shape]]
    modules: Table
    idle: Mapping[str, Collection[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, family: str, tables: Mapping[str, Iterable[TensorRule]], exported: Sequence[str]
    ) -> "AdaptedModel":
        """From the families' tables; those of components that no adapter changes are ignored."""
        adaptable = {c: list(rules) for c, rules in tables.items() if c in PREFIXES}
        shapes = {c: {rule.name: rule.shape for rule in rules} for c, rules in adaptable.items()}
        idle = {c: {r.name for r in rules if not r.needed} for c, rules in adaptable.items()}
        modules = module_table(adaptable)
        return cls(family.partition("-")[0], exported, shapes, modules, idle)


@dataclass(frozen=True)
class Place:
    """A tensor that a kind would change."""

    component: str
    module: str
    tensor: str
    shape: Shape


@dataclass
class Binding:
    """The changes (component -> tensor -> change) and the ledger of one file."""

    choice: AdapterChoice
    model: AdaptedModel
    file: Checkpoint
    peft: PeftSettings
    ledger: Ledger = field(default_factory=Ledger)
    changes: dict[str, dict[str, TensorChange]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Bind every key."""
        split = [s for key in self.file.tensors if (s := self._split(key)) is not None]
        for flat, keys in group_keys(split).items():
            self._bind_module(flat, keys)

    def _split(self, key: str) -> AdapterKey | None:
        family = key_family(key, self.file.tensors[key])
        found = split_key(key)
        if family not in (None, self.model.family):
            self.ledger.add([key], Status.WRONG_FAMILY, f"of a {family} model")
            return None
        # What follows overrules this for every key that a module takes.
        reason = "no known kind of key" if found is None else "another key holds the same part"
        self.ledger.add([key], Status.UNUSED, reason)
        return found

    def _bind_module(self, flat: str, keys: ModuleKeys) -> None:
        found = self.model.modules.get(flat)
        component = component_of(flat) if found is None else found[0]
        if component is not None and component not in self.model.exported:
            reason = f"the {component} is not part of this export"
            self.ledger.add(keys.all(), Status.NOT_EXPORTED, reason)
            return
        # What follows overrules this for every key that a kind takes.
        reason = "no such module in this checkpoint" if found is None else "nothing it goes with"
        self.ledger.add(keys.all(), Status.UNUSED, reason)
        for kind in KINDS:
            if found is not None and kind.name in keys.kinds:
                shared = keys.shared if kind.tensor == "weight" else {}
                self._bind_kind(*found, kind, keys.kinds[kind.name], shared)

    def _bind_kind(
        self, component: str, module: str, kind: Kind, parts: Parts, shared: Parts
    ) -> None:
        keys = [*parts.values(), *shared.values()]
        tensor = f"{module}.{kind.tensor}"
        shape = self.model.shapes[component].get(tensor)
        settings = self.peft.values(component, module, kind.settings)
        known = {**self._shapes(parts), **dict.fromkeys(settings, ())}
        told = {**known, **dict.fromkeys(kind.settings, ())}
        if not kind.whole(told):
            needed = " or ".join(" + ".join(sorted(need)) for need in kind.needs)
            reason = f"{kind.name} is not whole: it needs {needed}"
            self.ledger.add(keys, Status.UNUSED, reason)
        elif shape is None:
            self.ledger.add(keys, Status.UNUSED, f"the module has no {kind.tensor}")
        elif (why := kind.refuse(shape)) is not None:
            self.ledger.add(keys, Status.UNUSED, why)
        elif tensor in self.changes.get(component, {}):
            reason = "other keys change the same tensor"  # and what they share is theirs
            self.ledger.add(parts.values(), Status.UNUSED, reason)
        elif not _fits(kind, told, shape) or not self._shared_fit(kind, shared, shape):
            reason = f"it does not fit a {kind.tensor} of {list(shape)}"
            self.ledger.add(keys, Status.WRONG_SHAPE, reason)
        elif not (kind.whole(known) and _fits(kind, known, shape)):
            missing = ", ".join(name for name in kind.settings if name not in settings)
            reason = f"PEFT's {CONFIG} has to tell {missing}, and none beside it does"
            self.ledger.add(keys, Status.UNUSED, reason)
        elif tensor in self.model.idle.get(component, ()):
            reason = f"of the {component}'s layers past the hidden state that this export takes"
            self.ledger.add(keys, Status.NOT_EXPORTED, reason)
        else:
            place = Place(component, module, tensor, shape)
            changes = self.changes.setdefault(component, {})
            changes[tensor] = self._change(place, kind, parts, shared, settings)
            self.ledger.add(keys, Status.USED, f"changes {component} {tensor}")
            self._bind_bias(place, kind, parts, settings)

    def _bind_bias(
        self, place: Place, kind: Kind, parts: Parts, settings: Mapping[str, float]
    ) -> None:
        """Add what the keys of a weight also do to its module's bias, if it has one."""
        changes, tensor = self.changes[place.component], f"{place.module}.bias"
        shape = self.model.shapes[place.component].get(tensor)
        also = kind.bias
        if also is None or shape is None or tensor in changes or not also.whole(parts):
            return
        if _fits(also, self._shapes(parts), shape):
            bias = Place(place.component, place.module, tensor, shape)
            changes[tensor] = self._change(bias, also, parts, {}, settings)

    def _shapes(self, parts: Parts) -> dict[str, Shape]:
        return {part: self.file.tensors[key].shape for part, key in parts.items()}

    def _shared_fit(self, kind: Kind, shared: Parts, weight: Shape) -> bool:
        shapes = self._shapes(shared)
        return prod(shapes.pop("alpha", ())) == 1 and all(
            dora.kept_axis(part, shape, weight, kind.outputs) is not None
            for part, shape in shapes.items()
        )

    def _change(
        self,
        place: Place,
        kind: Kind,
        parts: Parts,
        shared: Parts,
        settings: Mapping[str, float],
    ) -> TensorChange:
        rank = kind.rank(self._shapes(parts))
        if rank is None and kind.peft_rank:
            rank = self.peft.rank(place.component, place.module)
        decomposition = None
        for part in sorted(dora.PARTS & shared.keys()):
            magnitude = self.file.tensors[shared[part]].shape
            axis = dora.kept_axis(part, magnitude, place.shape, kind.outputs)
            assert axis is not None  # `_shared_fit` was asked
            decomposition = shared[part], axis
        return TensorChange(
            kind=kind,
            keys={**parts, **{p: k for p, k in shared.items() if p == "alpha"}},
            strength=1.0 if rank is None else self._strength(place, rank, shared.get("alpha")),
            scale=self.choice.scale_of(place.component, place.module),
            rank=rank,
            dora=decomposition,
            settings=settings,
        )

    def _strength(self, place: Place, rank: int, alpha_key: str | None) -> float:
        """Return alpha / rank; a missing `alpha` means that it is the rank, for rsLoRA its root."""
        alpha = self.peft.alpha(place.component, place.module)
        if alpha_key is not None:
            alpha = float(self.file.read(alpha_key).reshape(-1)[0])
        return 1.0 if alpha is None else alpha / self.peft.divisor(place.component, rank)


def _fits(kind: Kind, shapes: Shapes, weight: Shape) -> bool:
    """Whether there is anything in these parts, and it belongs to such a weight."""
    return all(prod(shape) > 0 for shape in shapes.values()) and kind.fits(shapes, weight)
