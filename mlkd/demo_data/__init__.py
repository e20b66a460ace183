"""Parallel text of the package's own: a grammar to train on, hand-written sentences to evaluate on."""

from mlkd.demo_data.evaluation_sets import MiningSet, everyday, everyday_texts, graded_pairs, mining_set
from mlkd.demo_data.grammar import LANGUAGES, generate_pairs

__all__ = ["LANGUAGES", "MiningSet", "everyday", "everyday_texts", "generate_pairs", "graded_pairs", "mining_set"]
