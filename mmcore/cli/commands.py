"""The table of subcommands: what `mm --help` shows and where each one lives. Imports nothing."""

from typing import NamedTuple

PURPOSE = """\
From raw pictures, text and sound to a registered model, under one contract.
Start with:  mm corpus fetch stamps corpus/stamps
             mm plan configs/recipes/stamps_tiny_cpu.yaml
             mm run configs/recipes/stamps_tiny_cpu.yaml"""

EXIT_CODES = {
    0: "ok",
    1: "failed",
    2: "bad config",
    3: "gate refused",
    4: "nothing to do",
    130: "interrupted",
}


class Command(NamedTuple):
    """A subcommand, or a group of them."""

    module: str
    summary: str


COMMANDS = {
    "run": Command("mmcore.cli.run", "Run a recipe: only what is not done yet"),
    "plan": Command("mmcore.cli.plan", "Show what a run would do, why, and what it would cost"),
    "explain": Command("mmcore.cli.explain", "Tell the whole story of one sample"),
    "datasets": Command("mmcore.cli.datasets", "List the versions of datasets"),
    "models": Command("mmcore.cli.models", "List the versions of models"),
    "verify": Command("mmcore.cli.verify", "Check every byte against the manifests"),
    "config": Command("mmcore.cli.config", "Show a recipe with origins, or the schema of recipes"),
    "corpus": Command("mmcore.cli.corpus", "Fetch a real corpus, or make one with known answers"),
    "doctor": Command("mmcore.cli.doctor", "Check this machine: versions, memory, disk, services"),
}
