"""Textual inversion: learned vectors that a name in the prompt stands for."""
