"""Drawings of the report: curves, scores, sentences in two dimensions."""
