"""What is to be forgotten, by whose wish and why: a ledger per dataset that every reader obeys.

`forgotten/<dataset>/<id>.json` is written once, create-only, and is in force from then on. A sample
is known again by its key, and by the SHA-256 of its principal part as it lay at the source.
"""

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from mmcore import storage
from mmcore.core.tombstones import FORGOTTEN_NAME, read_tombstones
from mmcore.errors import IntegrityError
from mmcore.sample import Part, Sample, modality_of, sha256_hex

DIRECTORY = "forgotten"
FORMAT = "mm.forgotten"
FORMAT_VERSION = 1
_PRINCIPAL = ("image", "video", "audio", "text")
"""Of a sample that has several, the first is what it is known again by: a picture under another
name and with another caption is the same picture."""


@dataclass(frozen=True)
class Wish:
    """One entry of the ledger."""

    wish_id: str
    """Sorts by time."""
    at: str
    """ISO 8601, UTC."""
    by: str
    why: str
    samples: Mapping[str, tuple[str, ...]]
    """By key the SHA-256 of the principal part; several where the sample changed, none where it has
    no part."""
    versions: tuple[str, ...]
    """The dataset versions that held one of them when it was asked."""
    models: tuple[Mapping[str, Any], ...]
    """The trainings that had seen one of them when it was asked."""


@dataclass(frozen=True)
class Forgotten:
    """All that is to be forgotten of one dataset."""

    wishes: tuple[Wish, ...] = ()

    @cached_property
    def keys(self) -> frozenset[str]:
        """The keys that nobody may read any more."""
        return frozenset(key for wish in self.wishes for key in wish.samples)

    @cached_property
    def hashes(self) -> frozenset[str]:
        """The SHA-256 of the parts that nobody may take in any more."""
        each = (values for wish in self.wishes for values in wish.samples.values())
        return frozenset(value for values in each for value in values)

    @property
    def digest(self) -> str | None:
        """What stands for it in a fingerprint: keys and hashes; None when there is nothing."""
        if not self.wishes:
            return None
        return digest_of([*self.keys, *self.hashes])

    def holds(self, sample: Sample) -> bool:
        """Return whether a sample is one of them, by its key or by its bytes."""
        return sample.key in self.keys or principal_sha256(sample) in self.hashes

    def wish_for(self, key: str) -> Wish | None:
        """Return the first wish that names a key."""
        return next((wish for wish in self.wishes if key in wish.samples), None)


NOTHING = Forgotten()


def digest_of(texts: Iterable[str]) -> str:
    """Return the SHA-256 of a set of keys or hashes."""
    return sha256_hex("\n".join(sorted(set(texts))).encode())


def principal_sha256(sample: Sample) -> str:
    """Return what a sample is known again by: the SHA-256 of its picture, film, sound or text.

    Of several parts of a modality the first by extension counts. Empty for a sample without parts.
    """
    for modality in _PRINCIPAL:
        for extension in sorted(sample.parts):
            if modality_of(extension) == modality:
                return _sha256(sample.parts[extension])
    return ""


def load_forgotten(root: str, name: str) -> Forgotten:
    """Return the ledger of a dataset, the oldest wish first."""
    directory = storage.join(root, DIRECTORY, name)
    files = [file.path for file in storage.list_files(directory) if file.path.endswith(".json")]
    return Forgotten(tuple(_load(storage.join(directory, path)) for path in files))


def record_wish(
    root: str,
    name: str,
    *,
    by: str,
    why: str,
    samples: Mapping[str, Sequence[str]],
    versions: Sequence[str],
    models: Sequence[Mapping[str, Any]],
) -> Wish:
    """Write a wish down: from now on it is obeyed."""
    now = datetime.now(UTC)
    wish = Wish(
        wish_id=f"{now:%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}",
        at=now.isoformat(timespec="seconds"),
        by=by,
        why=why,
        samples={key: tuple(values) for key, values in samples.items()},
        versions=tuple(versions),
        models=tuple(models),
    )
    value = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(wish)}
    data = (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
    storage.create(storage.join(root, DIRECTORY, name, f"{wish.wish_id}.json"), data)
    return wish


def hidden_keys(dataset_url: str) -> frozenset[str]:
    """Return the keys of a dataset version that nobody may read any more.

    Asked are the ledger of the root that it lies below, and the file that travels with a copy.
    """
    beside = {one.key for one in read_tombstones(dataset_url, FORGOTTEN_NAME)}
    root, found, place = dataset_url.rstrip("/").rpartition("/ds/")
    if found and place.count("/") == 1:
        beside |= load_forgotten(root, place.split("/")[0]).keys
    return frozenset(beside)


def _load(url: str) -> Wish:
    try:
        value = json.loads(storage.read(url))
        if value.pop("format") != FORMAT or value.pop("format_version") != FORMAT_VERSION:
            raise ValueError("another format or version")
        value["versions"], value["models"] = tuple(value["versions"]), tuple(value["models"])
        value["samples"] = {key: tuple(values) for key, values in value["samples"].items()}
        return Wish(**value)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{url} does not say what is to be forgotten: {error}. Put the file back as it was, "
            "for until then nothing of this dataset may be read."
        ) from error


def _sha256(part: Part) -> str:
    if part.ref is not None:
        return part.ref.sha256
    assert part.data is not None, "a part has bytes or a reference"
    return sha256_hex(part.data)
