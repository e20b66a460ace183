"""Ranking terms: a sentence must prefer its own translation to every other one in the batch."""
