"""Evaluations: data and protocol in, numbers out."""
