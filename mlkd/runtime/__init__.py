"""Devices, checkpoints and the run log."""
