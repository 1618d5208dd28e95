"""The contract: stages, steps, manifests, the accounting, and the runner that holds them to it."""
