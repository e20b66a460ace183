"""xsim and xsim++: the error rate of margin-based retrieval into the source language, hard negatives and all."""
