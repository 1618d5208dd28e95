"""Bytes to arrays and back, one module per modality, for every stage that looks at bytes."""
