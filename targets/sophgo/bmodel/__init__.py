"""Sophgo's `.bmodel` files without the vendor's programs: read, write, combine, cut, relocate."""
