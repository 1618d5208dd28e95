"""Which samples look, read or sound alike: comparisons of prints in flat arrays, by sorting."""
