"""The other end of `targets.driver`: a network that answers JSON lines.

Runs in a toolchain's own Python (3.10 or later). First it says what it has; then it answers each
line {"inputs": NPZ, "outputs": NPZ} (tensors named "0", "1", ... by position) with
{"seconds": ...} or {"error": ...};
it ends when its standard input does. A line may name "layers", a folder: then the tensors of
"wanted" are written there, the first as 0.npy, and the answer has their names in order. With
"health" the answer has of every tensor its name, how many NaN and Inf, and its peak.

A network can have its caller compute a part of it: before an answer comes a line
{"compute": NPZ, "results": NPZ}, and the next line is {} once the second file is there, or
{"error": ...}.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np


def serve(load, *, asks_back=False):
    """Load a network, which can `describe()` itself and `run(arrays)`, and answer for it.

    With `asks_back`, `load` is given a function: arrays to those that the caller makes of them.
    """
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    # The vendor's libraries print to standard output; only answers may go there.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(message):
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    def ask_back(arrays):
        asked, results = (str(Path(name).resolve()) for name in ("asked.npz", "results.npz"))
        _save(asked, arrays)
        say({"compute": asked, "results": results})
        said = json.loads(sys.stdin.readline() or '{"error": "the caller is gone"}')
        if "error" in said:
            raise RuntimeError(said["error"])
        return _load(results)

    try:
        _answer(load(ask_back) if asks_back else load(), say)
    except RuntimeError as e:
        say({"error": str(e)})
    os._exit(0)  # the libraries' own clean-up crashes at times


def _answer(network, say):
    say(network.describe())
    for line in sys.stdin:
        request = json.loads(line)
        try:
            inputs = _load(request["inputs"])
            start = time.monotonic()
            seen = []
            if "layers" in request:
                outputs = network.run(inputs, _writer(request, seen))
            elif "health" in request:
                outputs = network.run(inputs, _doctor(seen))
            else:
                outputs = network.run(inputs)
            seconds = time.monotonic() - start
            _save(request["outputs"], outputs)
            say({"seconds": seconds, "layers": seen})
        except RuntimeError as e:
            say({"error": str(e)})


def _save(path, arrays):
    np.savez(path, **{str(i): a for i, a in enumerate(arrays)})


def _load(path):
    with np.load(path) as arrays:
        return [np.ascontiguousarray(arrays[str(i)]) for i in range(len(arrays.files))]


def _writer(request, seen):
    wanted = set(request["wanted"])

    def write(name, read):
        if name in wanted:
            np.save(Path(request["layers"]) / f"{len(seen)}.npy", read(name))
            seen.append(name)

    return write


def _doctor(seen):
    def look(name, read):
        values = read(name)
        finite = values[np.isfinite(values)]
        nan, inf = int(np.isnan(values).sum()), int(np.isinf(values).sum())
        seen.append([name, nan, inf, float(np.abs(finite).max(initial=0.0))])

    return look


def _end_with(caller):
    """End when the caller is gone: a closed standard input is not noticed during an inference."""
    while os.getppid() == caller:
        time.sleep(2)
    os._exit(1)
