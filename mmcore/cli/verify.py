"""`mm verify`: every byte against the manifests."""

from collections.abc import Iterator
from typing import Annotated

import typer

from mmcore import storage
from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, AsJson, Root, print_json, say
from mmcore.core.lineage import committed_artifacts, dataset_versions, find_dataset, step_names
from mmcore.core.manifest import verify_artifact
from mmcore.core.step import Artifact
from mmcore.recipe.execute import absolute_root

app = new_app()


@app.command()
def verify(
    dataset: Annotated[
        str | None, typer.Argument(help="NAME or NAME/VERSION; default: everything below the root")
    ] = None,
    root: Root = DEFAULT_ROOT,
    as_json: AsJson = False,
) -> int:
    """Read every file of every artifact and compare length and SHA-256 with its manifest."""
    root = absolute_root(root)
    artifacts = [find_dataset(root, dataset).artifact] if dataset else list(_all(root))
    results = []
    for artifact in artifacts:
        problems = verify_artifact(artifact.url, artifact.manifest)
        num_bytes = sum(file.num_bytes for file in artifact.manifest.files)
        num_files = len(artifact.manifest.files)
        results.append(
            {
                "url": artifact.url,
                "num_files": num_files,
                "num_bytes": num_bytes,
                "problems": problems,
            }
        )
        if not as_json:
            verdict = "BAD" if problems else "ok "
            print(f"{verdict}  {artifact.url}  {num_files} files, {num_bytes} bytes")
            for problem in problems:
                print(f"     {problem}")
    num_bad = sum(bool(result["problems"]) for result in results)
    if as_json:
        print_json("verify", {"artifacts": results, "num_bad": num_bad})
    elif num_bad:
        say(
            f"{num_bad} of {len(results)} artifacts are damaged. Delete their directories and run "
            "the recipe again: what is missing will be made anew."
        )
    else:
        say(f"{len(results)} artifacts hold what their manifests say")
    return 1 if num_bad else 0


def _all(root: str) -> Iterator[Artifact]:
    for name in storage.list_directories(storage.join(root, "steps")):
        for step in step_names(root, name):
            yield from committed_artifacts(storage.join(root, "steps", name, step))
    for version in dataset_versions(root):
        yield version.artifact
