"""File formats: bytes in, text out, with every oddity repaired and counted or refused by name."""
