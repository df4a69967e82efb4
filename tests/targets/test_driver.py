"""A script that has its caller compute a part of what it was asked."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from converter.weights import Array
from targets.base import ToolchainError
from targets.driver import Driver

SCRIPT = """
from serving import serve

class Network:
    def __init__(self, ask_back):
        self.ask_back = ask_back
    def describe(self):
        return {}
    def run(self, arrays):
        first, second = self.ask_back([arrays[0] + 1, arrays[0]])
        return [10 * first, second]

serve(Network, asks_back=True)
"""


def test_what_it_asks_back_is_answered_or_refused(tmp_path: Path) -> None:
    script = tmp_path / "network.py"
    script.write_text(SCRIPT)

    def compute(arrays: Sequence[Array]) -> list[Array]:
        if arrays[0][0] < 0:
            raise ToolchainError("of nothing that is negative")
        return [array * array for array in arrays]

    driver = Driver("the network", [sys.executable, script], dict(os.environ), tmp_path, compute)
    try:
        for number in (2.0, -3.0, 4.0):
            given = np.array([number], np.float32)
            if number < 0:
                with pytest.raises(ToolchainError, match="the network: of nothing that is neg"):
                    driver.run([given])
            else:
                first, second = driver.run([given])
                assert (float(first[0]), float(second[0])) == (10 * (number + 1) ** 2, number**2)
    finally:
        driver.close()
