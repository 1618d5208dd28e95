"""A recipe describes a whole pipeline in one checked file; here it becomes a graph of steps."""
