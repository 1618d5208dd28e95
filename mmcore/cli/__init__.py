"""The subcommands of `mm`, one module for each group; data on stdout, words on stderr."""
