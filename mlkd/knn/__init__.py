"""Exact nearest neighbours, margins and retrieval: the kernels."""
