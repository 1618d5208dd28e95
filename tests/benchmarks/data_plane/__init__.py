"""Figures of the data plane: a module for each family, which `bench_data.py` runs."""
