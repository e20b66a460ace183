"""The version of mlkd."""

__version__ = "0.1.0"
