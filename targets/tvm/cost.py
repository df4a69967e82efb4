"""What compiling with TVM costs, from measurements of TVM 0.27.0 on two cores."""


def compile_memory(nodes: int) -> int:
    """Bytes of TVM at its peak, for a graph of so many nodes."""
    return round(0.25e9 + 0.5e6 * nodes)
