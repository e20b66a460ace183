"""Encoders, students, vocabularies and the folder format."""
