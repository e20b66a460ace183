"""AdamW, its sparse rows and its schedule."""
