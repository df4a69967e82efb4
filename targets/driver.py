"""A vendor's program that stays open and computes whenever it is asked, in a process of its own."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from converter.weights import Array
from targets.base import ToolchainError
from targets.processes import end_group, own_group, telling_line

INSIDE = Path(__file__).with_name("inside")
"""What the scripts of all vendors import: `serving`."""

IDLE_SECONDS = 5
"""How long a driver may take to end by itself; one in the middle of an inference takes hours."""


Compute = Callable[[Sequence[Array]], Sequence[Array]]


@dataclass(frozen=True)
class PortAt:
    """A tensor at the edge of a compiled network. `dtype` is a numpy name."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "PortAt":
        """Read what `dataclasses.asdict` wrote."""
        return cls(data["name"], data["dtype"], tuple(data["shape"]))


class Driver:
    """A vendor's script that serves JSON lines, and the files of arrays that go with them.

    `what` names it in errors: ToolchainError, whenever it refuses or stops. `described` is what it
    said of itself when it was ready. What it asks back in the middle of an inference, `compute`
    answers.
    """

    def __init__(
        self,
        what: str,
        argv: Sequence[str | Path],
        env: Mapping[str, str],
        folder: Path,
        compute: Compute | None = None,
    ) -> None:
        self._what = what
        self._folder = folder
        self._compute = compute
        self._log = folder / "driver.log"
        self._open = ExitStack()
        try:
            log = self._open.enter_context(self._log.open("wb"))
            pipe = subprocess.PIPE
            paths = (str(INSIDE), env.get("PYTHONPATH"))
            env = {**env, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
            self._process = self._open.enter_context(
                own_group(argv, env=env, cwd=folder, stdin=pipe, stdout=pipe, stderr=log)
            )
            self.described = self._answer()
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """One inference; arrays by position."""
        self._infer(inputs, {})
        return _read(self._folder / "outputs.npz")

    def layers(self, inputs: Sequence[Array], wanted: Collection[str]) -> dict[str, Array]:
        """One inference; the inner tensors of these names, in the order of computation.

        They are mapped from files that the next call replaces.
        """
        folder = self._folder / "layers"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        answer = self._infer(inputs, {"layers": str(folder), "wanted": [*wanted]})
        names = enumerate(answer["layers"])
        return {name: np.load(folder / f"{place}.npy", mmap_mode="r") for place, name in names}

    def health(self, inputs: Sequence[Array]) -> list[tuple[str, int, int, float]]:
        """One inference; of every inner tensor its name, how many NaN and Inf, and its peak."""
        answer = self._infer(inputs, {"health": True})
        return [(name, nan, inf, peak) for name, nan, inf, peak in answer["layers"]]

    def _infer(self, inputs: Sequence[Array], more: Mapping[str, Any]) -> dict[str, Any]:
        given, results = self._folder / "inputs.npz", self._folder / "outputs.npz"
        _write(given, inputs)
        self._ask({"inputs": str(given), "outputs": str(results), **more})
        while "compute" in (answer := self._answer()):
            self._ask(self._answered(answer))
        return answer

    def _answered(self, asked: Mapping[str, str]) -> dict[str, str]:
        """Compute what is asked back, or say why not."""
        assert self._compute is not None, "a script asks back whose caller was not told"
        try:
            _write(Path(asked["results"]), self._compute(_read(Path(asked["compute"]))))
        except ToolchainError as e:
            return {"error": str(e)}
        return {}

    def close(self) -> None:
        """End it, mid-inference if need be."""
        process = getattr(self, "_process", None)
        if process is not None and process.stdin is not None:
            process.stdin.close()  # an idle driver ends by itself
            try:
                process.wait(timeout=IDLE_SECONDS)
            except subprocess.TimeoutExpired:
                end_group(process)
        self._open.close()

    def _ask(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None, "opened as a pipe above"
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "opened as a pipe above"
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ToolchainError(f"{self._what}: {answer['error']}")
        return answer

    def _fail(self) -> NoReturn:
        log = self._log.read_text(errors="replace")
        asserts = [line for line in log.splitlines() if "ASSERT" in line]
        reason = " ".join(asserts) or telling_line(log)
        raise ToolchainError(f"{self._what} stopped: {reason}")


def _write(path: Path, arrays: Sequence[Array]) -> None:
    np.savez(path, allow_pickle=False, **{str(i): a for i, a in enumerate(arrays)})


def _read(path: Path) -> list[Array]:
    with np.load(path) as arrays:
        return [arrays[str(i)] for i in range(len(arrays.files))]


def ordered_inputs(inputs: Mapping[str, Array], ports: Sequence[PortAt]) -> list[Array]:
    """The inputs in the ports' order; raises ValueError naming every port that does not fit."""
    wanted = {port.name: (port.dtype, port.shape) for port in ports}
    given = {name: (array.dtype.name, array.shape) for name, array in inputs.items()}
    wrong = [
        f"{name}: {_say(wanted.get(name))} expected, {_say(given.get(name))} given"
        for name in {**wanted, **given}
        if wanted.get(name) != given.get(name)
    ]
    if wrong:
        raise ValueError("inputs do not fit the compiled network: " + "; ".join(wrong))
    return [np.ascontiguousarray(inputs[port.name]) for port in ports]


def _say(port: tuple[str, tuple[int, ...]] | None) -> str:
    return "nothing" if port is None else f"{port[0]} {list(port[1])}"
