"""One training run, from its checks to its report."""
