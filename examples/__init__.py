"""Things to try the tool on, made from nothing."""
