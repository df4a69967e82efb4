"""MNN, the real one: its wheel is small and converts a small model in a second."""

import pytest

from converter.progress import silent
from targets.mnn.toolchain import Mnn


@pytest.fixture(scope="session")
def mnn() -> Mnn:
    """The installed toolchain; installs it where it is not."""
    toolchain = Mnn()
    toolchain.install(silent)
    return toolchain
