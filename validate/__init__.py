"""Run an artifact and its reference, measure, judge, report."""
