"""What a score is made of: values by language, items, means, intervals and paired tests."""
