"""MNN as a target: one file for all sizes, weights beside it, run through its Python API."""
