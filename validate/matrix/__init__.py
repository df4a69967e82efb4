"""The precision matrix: every precision of a target, component by component, in one run."""
