"""XNLI: does a classifier of English sentence vectors, trained on English alone, work in other languages?"""
