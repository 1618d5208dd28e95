"""Stages that bring every part to the one form that shards hold, and the tokenizer of the texts."""
