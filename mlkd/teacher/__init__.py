"""Teacher targets, computed once."""
