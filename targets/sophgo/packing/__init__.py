"""Where weights lie in a compiled network and in which form: learned, kept, and filled in."""
