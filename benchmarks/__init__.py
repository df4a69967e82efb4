"""Measurements quoted in the README, run by hand."""
