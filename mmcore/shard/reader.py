"""One sample of a dataset, or one part of it, without opening the rest: what `explain` asks for.

What is to be forgotten is not given out.
"""

from mmcore import storage
from mmcore.core.forgotten import hidden_keys
from mmcore.errors import IntegrityError, StepError
from mmcore.sample import sha256_hex
from mmcore.shard.table import TABLE_NAME, StoredSample, from_parquet


def read_samples(dataset_url: str) -> list[StoredSample]:
    """Return every sample of a dataset, in the order of the shards, without its bytes."""
    hidden = hidden_keys(dataset_url)
    table = from_parquet(storage.read(storage.join(dataset_url, TABLE_NAME)))
    found = (sample for sample in table if sample.key not in hidden)
    return sorted(found, key=lambda sample: (sample.shard, sample.index))


def find_sample(dataset_url: str, key: str) -> StoredSample | None:
    """Return where a sample lies, or None when the dataset does not hold it."""
    if key in hidden_keys(dataset_url):
        return None
    data = storage.read(storage.join(dataset_url, TABLE_NAME))
    return next(from_parquet(data, key=key), None)


def read_part(dataset_url: str, sample: StoredSample, extension: str) -> bytes:
    """Return the bytes of one part, read by its offset; IntegrityError when they have changed.

    StepError when the sample is to be forgotten.
    """
    if sample.key in hidden_keys(dataset_url):
        raise StepError(
            f"{sample.key} is to be forgotten and is not read any more. "
            f"`mm explain {sample.key}` says who asked for it."
        )
    part = next(part for part in sample.parts if part.extension == extension)
    url = storage.join(dataset_url, sample.shard)
    data = storage.read(url, offset=part.offset, num_bytes=part.num_bytes)
    if sha256_hex(data) != part.sha256:
        raise IntegrityError(
            f"{url} holds other bytes for {sample.key}.{extension} at {part.offset} than its table "
            "says. Delete the dataset's directory and run again: it will be made anew."
        )
    return data
