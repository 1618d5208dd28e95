"""The flows, on a real Prefect server that the test starts: one task per step, and nothing twice."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect import tags
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.testing.utilities import prefect_test_harness
from toy import write_corpus

from pipelines import flows

# Prefect's client and server leave sockets and databases to the garbage collector
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
STEPS = ["scan", "ingest", "clean", "split", "tokenizer", "encode", "shard"]


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    corpus = write_corpus(tmp_path / "corpus", num_texts=40)
    (corpus / "broken.txt").unlink()
    path = tmp_path / "texts.yaml"
    path.write_text(
        f"""
name: texts
source: {{path: {corpus}, layout: {{use: folder}}}}
clean: {{repair_caption: }}
split: {{together: [text]}}
encode: {{encode_text: }}
tokenizer: {{vocab_size: 100}}
"""
    )
    return str(path)


async def _task_runs_and_artifacts(flow_run_name: str) -> tuple[list[str], list[str]]:
    async with get_client() as client:
        runs = [run for run in await client.read_flow_runs() if run.name == flow_run_name]
        newest = max(runs, key=lambda run: run.created)
        only_it = FlowRunFilter(id=FlowRunFilterId(any_=[newest.id]))
        tasks = await client.read_task_runs(flow_run_filter=only_it)
        artifacts = await client.read_artifacts(flow_run_filter=only_it)
        return sorted(task.name for task in tasks), sorted(str(one.key) for one in artifacts)


@pytest.mark.usefixtures("server")
def test_a_flow_runs_each_step_as_one_task_and_leaves_a_markdown_artifact_of_each(
    recipe: str, tmp_path: Path
) -> None:
    root = str(tmp_path / "root")
    summary = asyncio.run(flows.prepare_data(recipe, root=root, executor="local", workers=1))
    tasks, artifacts = asyncio.run(_task_runs_and_artifacts("prepare-data texts"))
    assert tasks == sorted(STEPS)
    assert artifacts == sorted(f"texts-{step}" for step in STEPS)
    assert (Path(summary["dataset_url"]) / "manifest.json").exists()


async def _tags(flow_run_name: str) -> tuple[list[str], list[list[str]]]:
    async with get_client() as client:
        runs = [run for run in await client.read_flow_runs() if run.name == flow_run_name]
        only_it = FlowRunFilter(id=FlowRunFilterId(any_=[runs[0].id]))
        tasks = await client.read_task_runs(flow_run_filter=only_it)
        return runs[0].tags, [task.tags for task in tasks]


@pytest.mark.usefixtures("server")
def test_a_flow_has_the_tag_of_its_dataset_and_its_tasks_ask_for_no_slot_of_it(
    recipe: str, tmp_path: Path
) -> None:
    with tags("dataset:texts"):
        asyncio.run(flows.end_to_end(recipe, root=str(tmp_path), executor="local", workers=1))
    of_flow, of_tasks = asyncio.run(_tags("end-to-end texts"))
    assert of_flow == ["dataset:texts"]
    assert of_tasks == [[]] * len(STEPS)


@pytest.mark.usefixtures("server")
def test_the_flow_and_the_command_make_the_same_bytes_and_neither_does_it_again(
    recipe: str, tmp_path: Path
) -> None:
    from toy import hashes

    from mmcore.__main__ import main

    by_flow, by_command = tmp_path / "flow", tmp_path / "command"
    asyncio.run(flows.end_to_end(recipe, root=str(by_flow), executor="local", workers=1))
    with pytest.raises(SystemExit) as ended:
        main(["run", recipe, "--root", str(by_command), "--workers", "1"])
    assert ended.value.code == 0
    assert hashes(by_flow) == hashes(by_command)
    before = {path: path.stat().st_mtime_ns for path in (by_command / "ds").rglob("*")}
    asyncio.run(flows.end_to_end(recipe, root=str(by_command), executor="local", workers=1))
    assert {path: path.stat().st_mtime_ns for path in (by_command / "ds").rglob("*")} == before


@pytest.mark.usefixtures("server")
def test_a_failing_step_fails_the_flow_with_its_message(recipe: str, tmp_path: Path) -> None:
    os.rename(tmp_path / "corpus", tmp_path / "moved")
    with pytest.raises(Exception, match="no file below"):
        asyncio.run(flows.prepare_data(recipe, root=str(tmp_path / "root"), executor="local"))
