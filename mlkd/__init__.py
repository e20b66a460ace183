"""mlkd: an experiment runner for multilingual knowledge distillation of sentence embeddings."""

__version__ = "0.1.0"
