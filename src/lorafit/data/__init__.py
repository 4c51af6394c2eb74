"""Data: reading it, finding its columns, splitting and batching it."""
