"""Nearest neighbours, margins and retrieval."""
