"""TVM as targets: a library a size, parameters beside it, run through its Python API."""
