"""Graph to graph: one rewrite a file, and the pipelines that order them. No weight is ever read."""
