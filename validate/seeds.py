"""One random generator per name, so that no case depends on which others were made before it."""

import hashlib

import numpy as np


def generator(*names: str) -> np.random.Generator:
    """A PCG64 generator seeded by these names alone."""
    digest = hashlib.sha256("/".join(names).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16])))
