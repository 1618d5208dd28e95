"""The data report: what a dataset version holds, and what was left out of it and why."""
