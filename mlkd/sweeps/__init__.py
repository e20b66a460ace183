"""Sweeps: plan, jobs, hyper-parameter search, and the table at the end."""
