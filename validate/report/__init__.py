"""A validation told three ways: HTML, JSON and the terminal."""
