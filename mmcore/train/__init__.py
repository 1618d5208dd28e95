"""Training on one rank or many: the loop, its engines, and the step that starts the ranks."""
