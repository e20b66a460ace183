"""Parallel corpora: where pairs come from."""
