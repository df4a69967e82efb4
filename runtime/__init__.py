"""From a prompt to a picture, over any set of runners: tokenizer, schedulers, the sampling loop."""
