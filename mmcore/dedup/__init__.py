"""Rules over the whole corpus: duplicates, and splits that nothing leaks across."""
