"""`README.md` of a dataset: the card that Hugging Face reads, and how to open it elsewhere."""

import json
from collections.abc import Mapping, Sequence

_HF_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def dataset_card(
    *,
    name: str,
    licence: str,
    num_samples: Mapping[str, int],
    num_shards: Mapping[str, int],
    num_bytes: int,
    extensions: Sequence[str],
    optional: Sequence[str] = (),
    labels: Mapping[str, int],
    num_tombstones: int = 0,
) -> bytes:
    """Return the card; `num_samples` and `num_shards` are by split.

    Samples may lack those of the extensions that are `optional`.
    """
    splits = [split for split in _HF_SPLITS if split in num_samples]
    data_files = [
        line
        for split in splits
        for line in (f"  - split: {_HF_SPLITS[split]}", f"    path: {split}/{split}-*.tar")
    ]
    first = splits[0]
    plain = f"{first}/{first}-{{000000..{num_shards[first] - 1:06d}}}.tar"
    hf_files = ", ".join(f'"{_HF_SPLITS[split]}": "{split}/{split}-*.tar"' for split in splits)
    lines = [
        "---",
        f"pretty_name: {json.dumps(name)}",
        f"license: {json.dumps(licence.lower() or 'unknown')}",
        "configs:",
        "- config_name: default",
        "  data_files:",
        *data_files,
        "---",
        "",
        f"# {name}",
        "",
        (
            f"{sum(num_samples.values())} samples in {sum(num_shards.values())} WebDataset shards "
            f"of {num_bytes} bytes. Every sample has the parts "
            f"{', '.join(name for name in extensions if name not in optional)}"
            f"{'; some lack ' + ', '.join(optional) if optional else ''}."
        ),
        f"Licence: {licence or 'not stated'}.",
        "",
        "| split | samples | shards |",
        "| --- | --- | --- |",
        *(f"| {split} | {num_samples[split]} | {num_shards[split]} |" for split in splits),
        "",
        *_label_lines(labels),
        *_tombstone_lines(num_tombstones),
        "`manifest.parquet` has a row per sample: split, shard, position, parts, metadata, scores.",
        "",
        "## How to load it",
        "",
        "Run these in this directory.",
        "",
        "```python",
        "import json",
        "from pathlib import Path",
        "",
        "import webdataset",
        "",
        "gone = {",
        '    (one["shard"], one["key"])',
        '    for file in map(Path, ("tombstones.json", "forgotten.json"))',
        "    if file.exists()",
        '    for one in json.loads(file.read_text())["tombstones"]',
        "}",
        f'samples = webdataset.WebDataset("{plain}", shardshuffle=False)',
        'samples = samples.select(lambda one: (one["__url__"], one["__key__"]) not in gone)',
        "```",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        f'splits = load_dataset("webdataset", data_files={{{hf_files}}}, streaming=True)',
        "```",
        "",
        "```python",
        "from pathlib import Path",
        "",
        "import ray",
        "",
        "# workers run elsewhere, so the path is absolute",
        f'shards = str(Path("{first}").resolve())',
        'samples = ray.data.read_webdataset(shards, file_extensions=["tar"], decoder=None)',
        "```",
        "",
        "Megatron-Energon: `.nv-meta` is ready, with the crude dataset type; a task encoder with a",
        "cooker says what the parts mean.",
    ]
    return ("\n".join(lines) + "\n").encode()


def _tombstone_lines(number: int) -> list[str]:
    if not number:
        return []
    return [
        f"{number} more samples lie in the shards and count no more: they changed, were removed",
        "or are to be forgotten. `tombstones.json` names them; skip them, as the first example",
        "below does, or ask for a compacted version.",
        "",
    ]


def _label_lines(labels: Mapping[str, int]) -> list[str]:
    if not labels:
        return []
    rows = (f"| {_cell(label)} | {num} |" for label, num in sorted(labels.items()))
    return ["| label | samples |", "| --- | --- |", *rows, ""]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
