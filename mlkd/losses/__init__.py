"""The three-term mix: ranking, feature, similarity."""
