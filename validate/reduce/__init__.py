"""Reduce: the smallest part of a graph that still fails on a target, as a folder to send."""
