"""One file or folder per back-end: compile a graph, bind weights, open a runner."""
