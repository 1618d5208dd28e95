"""From raw pictures, text, sound and video to a registered model, under one contract.

Importing this package loads no heavy library: every stage imports what it needs where it runs.
"""

import os

# Arrow asks once, when it is loaded; its own pools keep what each of their threads has freed, which
# is more than all that a driver holds
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

__version__ = "0.1.0"
