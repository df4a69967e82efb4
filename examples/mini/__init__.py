"""A miniature Stable Diffusion 1.5 that draws shapes, and everything that trained it."""
