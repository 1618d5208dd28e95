"""The pages, one module per group: each has `routes`, and `attach` where it keeps something."""
