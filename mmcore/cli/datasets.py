"""`mm datasets`: what datasets there are."""

from typing import Any

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, AsJson, Root, print_json, say
from mmcore.core.forgotten import load_forgotten
from mmcore.core.lineage import dataset_versions, held
from mmcore.recipe.execute import absolute_root

app = new_app()


@app.command()
def datasets(root: Root = DEFAULT_ROOT, as_json: AsJson = False) -> int:
    """List every dataset version, the oldest first."""
    root = absolute_root(root)
    rows: list[dict[str, Any]] = [
        {
            "dataset": str(one),
            "fingerprint": one.artifact.manifest.fingerprint,
            "url": one.artifact.url,
            **one.artifact.manifest.facts,
            "num_forgotten": len(held(one.artifact, load_forgotten(root, one.name).keys)),
        }
        for one in dataset_versions(root)
    ]
    if as_json:
        print_json("datasets", {"datasets": rows})
        return 0
    for row in rows:
        splits = ", ".join(f"{split} {num}" for split, num in row["num_samples"].items())
        size = f"{row['num_bytes'] / 1e6:.1f} MB in {row['num_shards']} shards"
        dead = sum(row.get("tombstones", {}).values()) + row["num_forgotten"]
        more = f"  {dead} dead in its shards" if dead else ""
        print(f"{row['dataset']}  {splits}  {size}{more}  {row['url']}")
    if not rows:
        say(f"no dataset below {root} yet. Make one with: mm run RECIPE")
    return 0
