"""The data report of a dataset version, made where it is known where the raw corpus lies."""

from mmcore import storage
from mmcore.core.lineage import DATASETS, SHARD_STEP, DatasetVersion
from mmcore.core.runner import Run
from mmcore.core.runs import list_runs
from mmcore.core.step import Artifact
from mmcore.errors import ConfigError
from mmcore.evaluate.data.work import REPORT_NAME, find_report, make_report
from mmcore.recipe.build import load_recipe


def source_url(root: str, name: str) -> str | None:
    """Return where the raw corpus of a dataset lies, as its newest run's recipe says."""
    for run in list_runs(root):
        if run.get("name") != name:
            continue
        if run.get("source"):
            return str(run["source"])
        try:
            recipe = load_recipe(str(run["recipe"]), overrides=tuple(run.get("overrides") or ()))
        except (ConfigError, OSError):
            return None
        return recipe.graph.source.url
    return None


def report_on(
    root: str, version: DatasetVersion, *, against: DatasetVersion | None = None
) -> Artifact:
    """Return the data report of a version, made unless it is there."""
    source = source_url(root, version.name)
    return make_report(root, version, source_url=source, against=against)


def report_on_run(run: Run) -> Artifact:
    """Return the data report of the version that a run has published or found."""
    version = _version(run.graph.name, run.artifacts[SHARD_STEP])
    return make_report(run.root, version, source_url=run.graph.source.url)


def report_url(name: str, shard: Artifact) -> str | None:
    """Return where the data report of a version lies, if it was made."""
    root, found, _ = shard.url.rpartition(f"/{DATASETS}/")
    made = find_report(root, _version(name, shard)) if found else None
    return None if made is None else storage.join(made.url, REPORT_NAME)


def _version(name: str, shard: Artifact) -> DatasetVersion:
    return DatasetVersion(name, shard.url.rsplit("/", 1)[-1], shard)
