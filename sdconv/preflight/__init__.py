"""Preflight: what an export and a compilation need, whether this machine has it, what to type."""
