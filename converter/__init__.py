"""Checkpoints, adapters and architectures in; bundles of weightless graphs and weights out."""
