"""Evaluation: a trained model on samples it never saw, and a report to look at and listen to."""
