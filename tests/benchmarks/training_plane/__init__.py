"""Figures of the training plane: a module for each family."""
