"""The limit that an export is measured against: read every tensor, cast to float32, write.

python -m benchmarks.plain_copy sd15.safetensors copy.data
"""

import sys
from pathlib import Path

import numpy as np

from converter.containers.opening import open_checkpoint


def main() -> None:
    """Copy the tensors of argv[1] to argv[2] as float32, in file order, one at a time."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    file = open_checkpoint(source)
    with target.open("wb") as out:
        for name in sorted(file.tensors, key=lambda n: file.tensors[n].begin):
            out.write(file.read(name).astype(np.float32).data)
            file.release(name)


if __name__ == "__main__":
    main()
