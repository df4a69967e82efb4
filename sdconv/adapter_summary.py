"""What `export` prints about adapters: how much of each was used, and where it changes most."""

from collections.abc import Iterator, Mapping
from typing import Any

from converter.adapters.ledger import LEFT_OUT
from converter.bundle import Bundle

LARGEST = 3
"""How many of the largest relative changes are printed for each adapter."""
STRONG = 1.0
"""A change as large as the weight itself: no trained adapter at a sane scale does that."""


def adapter_lines(bundle: Bundle) -> Iterator[str]:
    """One line an adapter, in the order given."""
    for record in bundle.adapters:
        line = fit_line(record)
        if ranked := _relative_changes(bundle, record["identities"]):
            named = (f"{name} {100 * change:.3g} %" for change, name in ranked[:LARGEST])
            line += f"; largest changes: {', '.join(named)}"
        yield line


def fit_line(record: Mapping[str, Any]) -> str:
    """How much of an adapter (`Adapter.record`) fits the model."""
    ledger = record["ledger"]
    left = sum(len(keys) for status in LEFT_OUT for keys in ledger[status].values())
    line = (
        f"{record['path']}: {record['kind']}, scale {record['scales']}, "
        f"{ledger['used']} of {ledger['total']} keys used"
    )
    if left:
        line += f", {left} do not fit"
    if elsewhere := sum(map(len, ledger["not_exported"].values())):
        line += f", {elsewhere} for what is not exported"
    return line


def adapter_warnings(bundle: Bundle) -> Iterator[str]:
    """One line for each adapter that changes nothing, or more than a trained one would."""
    for record in bundle.adapters:
        ranked = _relative_changes(bundle, record["identities"])
        if not any(change for change, _ in ranked):
            yield f"{record['path']} changes nothing at scale {record['scales']}"
        elif strong := [name for change, name in ranked if change >= STRONG]:
            yield (
                f"{record['path']} changes {len(strong)} tensors by more than their own size, "
                f"first {strong[0]}: is scale {record['scales']} meant?"
            )


def _relative_changes(bundle: Bundle, identities: Mapping[str, str]) -> list[tuple[float, str]]:
    """(relative change, ``component tensor``), the largest first; infinite for tensors of zeros."""
    found = []
    for component in bundle.components.values():
        for tensor, norms in component.changes.get(identities.get(component.name, ""), {}).items():
            infinite = float("inf") if norms["norm"] else 0.0
            change = infinite if norms["relative"] is None else norms["relative"]
            found.append((change, f"{component.name} {tensor.removesuffix('.weight')}"))
    return sorted(found, reverse=True)
