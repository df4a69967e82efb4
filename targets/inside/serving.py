"""The other end of `targets.driver`: a network that answers JSON lines.

Runs in a toolchain's own Python (3.10 or later). First it says what it has; then it answers each
line {"inputs": NPZ, "outputs": NPZ} (tensors named "0", "1", ... by position) with
{"seconds": ...} or {"error": ...}; it ends when its standard input does.
"""

import json
import os
import sys
import threading
import time

import numpy as np


def serve(load):
    """Load a network, which can `describe()` itself and `run(arrays)`, and answer for it."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    # The vendor's libraries print to standard output; only answers may go there.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(message):
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        _answer(load(), say)
    except RuntimeError as e:
        say({"error": str(e)})
    os._exit(0)  # the libraries' own clean-up crashes at times


def _answer(network, say):
    say(network.describe())
    for line in sys.stdin:
        request = json.loads(line)
        try:
            with np.load(request["inputs"]) as given:
                inputs = [np.ascontiguousarray(given[str(i)]) for i in range(len(given.files))]
            start = time.monotonic()
            outputs = network.run(inputs)
            seconds = time.monotonic() - start
            np.savez(request["outputs"], **{str(i): a for i, a in enumerate(outputs)})
            say({"seconds": seconds})
        except RuntimeError as e:
            say({"error": str(e)})


def _end_with(caller):
    """End when the caller is gone: a closed standard input is not noticed during an inference."""
    while os.getppid() == caller:
        time.sleep(2)
    os._exit(1)
