"""Registration: one version per model, with its card, and the aliases that say which is in use."""
