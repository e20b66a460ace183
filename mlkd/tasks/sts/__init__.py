"""Semantic textual similarity: do cosines rank sentence pairs, also across languages, as people do?"""
