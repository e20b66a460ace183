"""Evaluations: loaded tasks over one encoder after another, and earlier results side by side."""
