"""Configuration: schemas, composition by Hydra, and every check that needs no file."""
