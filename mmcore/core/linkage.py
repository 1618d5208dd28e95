"""What makes two samples the same thing seen twice: equal bytes of a modality, or equal metadata.

A name says what is compared: a modality (`image`: the SHA-256 of its parts) or `meta:<field>`.
Duplicates, splits and the last check before a dataset is published all mean the same by it.
"""

from collections.abc import Sequence

from mmcore.core.step import canonical_json
from mmcore.errors import ConfigError
from mmcore.sample import MODALITIES, Part, Sample, modality_of, sha256_hex

META_PREFIX = "meta:"
LINKS = "links"
"""The index that a split leaves behind of each value that links samples, with split and group."""
MEMBERS = "members"
"""The index of each sample by its key, with split and group."""


def check_names(names: Sequence[str], *, field: str) -> None:
    """Raise ConfigError unless every name is a modality or `meta:<field>`, and there is one."""
    known = f"{', '.join(sorted(MODALITIES))} or {META_PREFIX}<field>"
    if not names:
        raise ConfigError(f"{field} is empty, so nothing would be compared. Name {known}.")
    for name in names:
        is_meta = name.startswith(META_PREFIX) and len(name) > len(META_PREFIX)
        if not is_meta and name not in MODALITIES:
            raise ConfigError(f"{field}: {name!r} is nothing that can be compared. Use {known}.")


def values_of(sample: Sample, name: str) -> tuple[str, ...]:
    """Return what a sample has under a name: one value per part of a modality, or one of metadata.

    Empty when the sample lacks it. Null and "" count as lacking: two samples without a caption are
    not the same thing seen twice.
    """
    if name.startswith(META_PREFIX):
        value = sample.meta.get(name.removeprefix(META_PREFIX))
        if value is None or value == "":
            return ()
        return (value if isinstance(value, str) else canonical_json(value).decode(),)
    extensions = [ext for ext in sorted(sample.parts) if modality_of(ext) == name]
    return tuple(sha256_of(sample.parts[extension]) for extension in extensions)


def sha256_of(part: Part) -> str:
    """Return the SHA-256 of a part, which nobody needs to load for it."""
    if part.ref is not None:
        return part.ref.sha256
    assert part.data is not None, "a part has bytes or a reference"
    return sha256_hex(part.data)
