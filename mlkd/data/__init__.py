"""Parallel text: reading, filtering, splitting, token store and batches."""
