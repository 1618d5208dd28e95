"""Figures of the training plane: a module for each family, which `bench_train.py` runs."""
