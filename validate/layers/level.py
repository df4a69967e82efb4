"""The layer level of a folder: which networks are looked into, and what that says of others."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from targets.base import Artifact
from validate.base import Judge, Result, Verdict
from validate.layers.run import GRAPH_TARGET, LayerLevel
from validate.plan import Group
from validate.references import References
from validate.run import Bench
from validate.scenes import Scene


def layer_results(
    groups: Sequence[Group],
    references: References,
    bench: Bench | None,
    judge: Judge,
    failed: Sequence[Result] | None,
) -> list[Result]:
    """Look into every artifact that can be, or into those of `failed` results alone.

    Each in its most telling case, or in the worst of what failed. Of what was looked into only
    because it failed, targets that show nothing are left out.
    """
    level = LayerLevel(references, bench, judge)
    if failed is None:
        return [r for g in groups for r in level.results(g, g.scenes[0], g.subjects)]
    found: dict[tuple[object, ...], Result] = {}
    for group in groups:
        for result in (result for result in failed if _belongs(result, group)):
            subjects = [s for s in group.subjects if _is_of(s.artifact, result)]
            for inside in level.results(group, _scene(group, result), subjects):
                if inside.in_order:
                    found.setdefault((inside.label, inside.batch), inside)
    return list(found.values())


def with_blame(results: Sequence[Result], inside: Sequence[Result]) -> Iterator[Result]:
    """Say of what failed where it parts from torch, and whether the exported graph does too."""
    for result in results:
        mine = [r for r in inside if _same_network(r, result)]
        own = next((r for r in mine if r.target == result.target), None)
        graph = next((r for r in mine if r.target == GRAPH_TARGET), None)
        if result.verdict is not Verdict.FAIL or own is None:
            yield result
            continue
        blame = own.blame
        if graph is not None and graph.verdict is Verdict.FAIL:
            blame += f"; so does the exported graph, which {graph.blame}"
        elif graph is not None and graph.verdict is Verdict.PASS:
            blame += "; the exported graph agrees with torch, so the target is to blame"
        yield replace(result, blame=blame)


def _same_network(inside: Result, result: Result) -> bool:
    mine = (inside.component, inside.size, inside.batch)
    return mine == (result.component, result.size, result.batch) and (
        inside.target == GRAPH_TARGET
        or (inside.target, inside.precision) == (result.target, result.precision)
    )


def _belongs(result: Result, group: Group) -> bool:
    mine = (result.component, result.size, result.batch)
    return mine == (group.component, group.size, group.batch)


def _is_of(artifact: Artifact, result: Result) -> bool:
    return (artifact.target, artifact.precision) == (result.target, result.precision)


def _scene(group: Group, result: Result) -> Scene:
    """The case that decides, where it is one of the group's."""
    return next((s for s in group.scenes if s.name == result.worst.case), group.scenes[0])
