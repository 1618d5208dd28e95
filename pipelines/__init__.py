"""Prefect flows: what happens and when. Wiring only; `mmcore` does the work."""
