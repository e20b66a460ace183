"""BUCC: find the translations planted in two monolingual corpora."""
