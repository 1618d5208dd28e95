"""Shards to batches of arrays: the same stream for any number of ranks, without torch."""
