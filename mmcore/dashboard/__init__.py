"""The web application: what runs, what came of it, and why. It reads what runs wrote."""
