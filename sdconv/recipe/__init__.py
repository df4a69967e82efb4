"""A recipe: one YAML file that says everything, from checkpoint to verdict."""
