"""From a folder of raw files to samples: layouts, and the corpora one can fetch or make."""
