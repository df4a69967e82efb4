"""The versions of what computed the reference and the numbers, without importing any of it."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("sdconv", "numpy", "onnxruntime", "torch", "diffusers", "transformers")


def versions_here() -> dict[str, str]:
    """Return version by package, of those installed, and of Python."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
