"""xsim and xsim++: the error rate of margin-based retrieval into English, hard negatives and all."""
