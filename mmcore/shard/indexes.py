"""The small index files beside the shards, for each reader that wants one of its own."""

import json
import struct
from collections.abc import Mapping, Sequence

from mmcore.shard.table import StoredSample


def energon_index(header_offsets: Sequence[int], end_of_data: int) -> bytes:
    """Return Energon's `.tar.idx`: where each sample's first header begins, then the end, as u64.

    Little-endian, as Energon writes it on the machines it runs on.
    """
    return struct.pack(f"<{len(header_offsets) + 1}Q", *header_offsets, end_of_data)


def dali_index(samples: Sequence[StoredSample]) -> bytes:
    """Return DALI's `.idx`, version 1.2: a line per sample of extension, offset, size and name."""
    lines = [f"v1.2 {len(samples)}"]
    for sample in samples:
        fields = (
            f"{part.extension} {part.offset} {part.num_bytes} {sample.key}.{part.extension}"
            for part in sample.parts
        )
        lines.append(" ".join(fields))
    return ("\n".join(lines) + "\n").encode("ascii")


def open_clip_sizes(num_samples: Mapping[str, int]) -> dict[str, bytes]:
    """Return open_clip's two files for one split, by name, from the samples of each shard."""
    sizes = {path.rsplit("/", 1)[-1]: num for path, num in sorted(num_samples.items())}
    return {
        "sizes.json": (json.dumps(sizes, indent=1) + "\n").encode(),
        "__len__": f"{sum(sizes.values())}\n".encode(),
    }


def wids_index(name: str, num_samples: Mapping[str, int], num_bytes: Mapping[str, int]) -> bytes:
    """Return the wids index of one split; it lies in a directory beside the split's."""
    shards = [
        {"url": f"../{path}", "nsamples": num, "filesize": num_bytes[path]}
        for path, num in sorted(num_samples.items())
    ]
    value = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "name": name,
        "shardlist": shards,
    }
    return (json.dumps(value, indent=1) + "\n").encode()
