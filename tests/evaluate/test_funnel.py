import pytest

from mmcore.core.manifest import Counts
from mmcore.errors import StepError
from mmcore.evaluate.funnel import funnel, upstream_manifests


def test_losses_are_listed_with_their_reasons_the_greatest_first() -> None:
    counts = Counts(
        found=20, kept=10, dropped={"silent": 2, "too_small": 5}, quarantined={"broken": 3}
    )
    (level,) = funnel([("clean", counts)])
    assert (level.num_found, level.num_kept) == (20, 10)
    assert level.losses == (
        ("dropped", "too_small", 5),
        ("quarantined", "broken", 3),
        ("dropped", "silent", 2),
    )


def test_step_that_counts_no_samples_is_no_level() -> None:
    assert funnel([("scan", Counts()), ("ingest", Counts(found=1, kept=1))])[0].step == "ingest"


def test_upstream_steps_come_after_their_inputs_and_branches_stay_out(project) -> None:
    bases = {name: artifact.url for name, artifact in project.artifacts.items()}
    steps = [name for name, _ in upstream_manifests(bases, "shard")]
    assert steps == ["ingest", "clean", "shard"]


def test_artifact_that_has_gone_is_an_error_that_names_it(project, tmp_path) -> None:
    bases = {name: artifact.url for name, artifact in project.artifacts.items()}
    (tmp_path / "clean" / "manifest.json").unlink()
    with pytest.raises(StepError, match="the artifact of clean"):
        upstream_manifests(bases, "shard")
