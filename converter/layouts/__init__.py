"""The names that tools give to the same tensors, translated to the original single-file ones."""
