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
    130: "interrupted or cancelled",
}


class Command(NamedTuple):
    """A subcommand, or a group of them."""

    module: str
    summary: str


COMMANDS = {
    "run": Command("mmcore.cli.run", "Run a recipe: only what is not done yet"),
    "plan": Command("mmcore.cli.plan", "Show what a run would do, why, and what it would cost"),
    "whatif": Command("mmcore.cli.whatif", "Say what other limits would keep; decode nothing"),
    "forecast": Command("mmcore.cli.forecast", "Say what a training needs and how long it takes"),
    "tune": Command("mmcore.cli.tune", "Search for better settings over the recipe's ranges"),
    "crossvalidate": Command("mmcore.cli.crossvalidate", "Train once per fold; mean and spread"),
    "explain": Command("mmcore.cli.explain", "Tell the whole story of one sample"),
    "diff": Command("mmcore.cli.diff", "Compare two dataset versions: samples, splits, scores"),
    "report": Command("mmcore.cli.report", "Look at a dataset version: kept, left out, drift"),
    "forget": Command("mmcore.cli.forget", "Forget samples: no reader gives them out any more"),
    "compact": Command("mmcore.cli.compact", "Rewrite a dataset without what is gone from it"),
    "datasets": Command("mmcore.cli.datasets", "List the versions of datasets"),
    "models": Command("mmcore.cli.models", "List the versions of models"),
    "export": Command("mmcore.cli.export", "Write a whole model from a version or a checkpoint"),
    "verify": Command("mmcore.cli.verify", "Check every byte against the manifests"),
    "up": Command("mmcore.cli.up", "Start the services: Prefect, worker, Ray, MLflow, dashboard"),
    "status": Command("mmcore.cli.status", "Show how the services are, and where they log"),
    "down": Command("mmcore.cli.down", "Stop the services; no process stays"),
    "dashboard": Command("mmcore.cli.dashboard", "Serve the dashboard alone, without services"),
    "deploy": Command("mmcore.cli.deploy", "Deploy recipes: schedules, triggers, limits"),
    "schedule": Command("mmcore.cli.schedule", "List, pause and resume schedules"),
    "backfill": Command("mmcore.cli.backfill", "Run a deployment for dates that have passed"),
    "watch": Command("mmcore.cli.watch", "Watch a folder or bucket prefix, and tell of new data"),
    "notify-data": Command("mmcore.cli.notify_data", "Tell that new data has arrived"),
    "retrain": Command("mmcore.cli.retrain", "Retrain on new data, if the policy asks"),
    "runs": Command("mmcore.cli.runs", "List runs: how each is, or how it ended"),
    "cancel": Command("mmcore.cli.cancel", "Cancel a run: no process or half shard stays"),
    "promote": Command("mmcore.cli.promote", "Make a model version the champion, with a reason"),
    "rollback": Command("mmcore.cli.rollback", "Give the place back to the champion before"),
    "config": Command("mmcore.cli.config", "Show a recipe with origins, or the schema of recipes"),
    "corpus": Command("mmcore.cli.corpus", "Fetch a real corpus, or make one with known answers"),
    "doctor": Command("mmcore.cli.doctor", "Check this machine: versions, memory, disk, services"),
}
