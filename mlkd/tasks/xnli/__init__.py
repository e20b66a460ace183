"""XNLI: does a classifier of sentence vectors, trained on one language alone, work in others?"""
