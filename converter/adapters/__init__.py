"""Adapters (LoRA): changes to single tensors, and a ledger of every key in their files."""
