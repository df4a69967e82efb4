"""The contract of a rewrite: `call(model) -> PassResult`; the frame around it is written once.

The author of a pass writes `call`, telling `fire` and `refuse` what happened. The frame checks,
before and after, that no weight was lost, changed shape or moved in its file. A *weight* is an
initializer whose data lies in an external file (`passes.weights`); no pass reads one.
"""

from dataclasses import dataclass, field

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult, PostconditionError

from passes.weights import weight_places


@dataclass(frozen=True)
class Refusal:
    """A place that looked like the pattern and was left alone: which node, and why."""

    node: str
    reason: str


@dataclass
class PassReport:
    """What one run of a pass did: how often it fired and where it refused."""

    name: str
    fired: int = 0
    refusals: list[Refusal] = field(default_factory=list)


class Pass(InPlacePass):
    """A rewrite of a graph, in place. Subclasses set `name` (kebab-case) and write `call`."""

    name: str
    changes_weights = False
    """Whether the pass may change the layout or the set of weights."""

    def __init__(self) -> None:
        self.report = PassReport(self.name)

    def __call__(self, model_or_result: ir.Model | PassResult, /) -> PassResult:
        """Run `call` inside the frame; `report` then tells what it did."""
        model = (
            model_or_result.model if isinstance(model_or_result, PassResult) else model_or_result
        )
        self.report = PassReport(self.name)
        before = weight_places(model)
        result = super().__call__(model)
        if not self.changes_weights and weight_places(result.model) != before:
            raise PostconditionError(f"pass {self.name} lost, moved or reshaped a weight")
        return result

    def fire(self) -> None:
        """Count one application of the rewrite."""
        self.report.fired += 1

    def refuse(self, node: ir.Node, reason: str) -> None:
        """Note why a candidate was left alone."""
        self.report.refusals.append(Refusal(node.name or node.op_type, reason))

    def result(self, model: ir.Model) -> PassResult:
        """The usual return value: modified if and only if the pass fired."""
        return PassResult(model, modified=self.report.fired > 0)
