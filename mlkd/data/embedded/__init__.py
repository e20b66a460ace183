"""Parallel text of the package's own: a grammar to train on, hand-written sentences to evaluate on."""

from mlkd.data.embedded.evaluation import MiningSet, everyday, graded_pairs, mining_set
from mlkd.data.embedded.grammar import LANGUAGES, generate_pairs

__all__ = ["LANGUAGES", "MiningSet", "everyday", "generate_pairs", "graded_pairs", "mining_set"]
