"""Sophgo chips through tpu-mlir: its environment, compilation, files of stages, the emulator."""
