"""How long judging an artifact takes, before there is one.

Only time: how much memory torch takes beside an artifact was measured at one full size alone
(10 GB for SD1.5 at 512x512 on ONNX Runtime, at the VAE; most of it weights mapped from files).
"""

from targets.base import Target, Workload
from validate.base import EMULATOR_BUDGET

OPERATIONS_PER_SECOND = 78e9
"""Of torch and of ONNX Runtime on the CPU, float32, two cores: the four components of full-size
SD1.5 at 512x512, three or four cases each on both, are 28.3e12 operations and took six minutes."""


def judge_seconds(
    work: Workload, cases: int, target: Target, budget: float = EMULATOR_BUDGET
) -> float | None:
    """Seconds for as many of the cases as `budget` (seconds) lets an emulator run; None for none.

    A target that runs on this machine itself has no budget.
    """
    reference = work.operations / OPERATIONS_PER_SECOND
    run = target.predict_run(work)
    if run is None:
        return cases * 2 * reference
    affordable = min(cases, int(budget // run))
    return affordable * (run + reference) if affordable else None
