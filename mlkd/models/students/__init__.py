"""Students: where their layers, weights and vocabulary come from."""
