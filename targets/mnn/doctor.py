"""Proof that MNN works here: a network small enough to check by hand, bound and run."""

from converter.progress import Progress
from targets.mnn.toolchain import Mnn
from targets.toolchains import Proof


def prove(toolchain: Mnn, progress: Progress) -> list[Proof]:
    """Convert, bind and run the micro network in every format."""
    raise NotImplementedError
