"""A layout whose files give several samples: each line of a text file is one."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmcore.ingest.layout import Grouping, Layout, Made, RawSample, ReadFile, SourceFile, make_key
from mmcore.sample import Part, Sample


@dataclass(frozen=True, kw_only=True)
class LineLayout(Layout):
    """Lines of the form `name: text`; the key has the file and the name."""

    def group(self, files: Sequence[SourceFile]) -> Grouping:
        texts = [file for file in files if file.path.endswith(".txt")]
        samples = [RawSample(make_key(one.path[:-4]), one.path[:-4], {"txt": one}) for one in texts]
        return Grouping(sorted(samples, key=lambda raw: raw.original_key), [])

    def make(self, raw: RawSample, read_file: ReadFile) -> Made:
        samples = []
        for line in read_file(raw.files["txt"]).decode().splitlines():
            name, _, text = line.partition(": ")
            original = f"{raw.original_key}/{name}"
            samples.append(
                Sample(
                    make_key(original),
                    {"txt": Part(data=text.encode())},
                    {"original_key": original, "licence": "cc0-1.0", "source": "lines"},
                )
            )
        return Made(samples)
