"""From raw pictures, text, sound and video to a registered model, under one contract.

Importing this package loads no heavy library: every stage imports what it needs where it runs.
"""

__version__ = "0.1.0"
