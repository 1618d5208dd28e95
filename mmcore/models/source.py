"""Where a model over samples comes from, and what it wants to be shown; no torch here.

A directory of `transformers`, a name on its hub, or a directory of a model of ours.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from mmcore import storage
from mmcore.errors import ConfigError, StorageError
from mmcore.media.audio import audio_of, log_mel, resample
from mmcore.media.image import picture_of
from mmcore.media.resize import Fit, needed_for, resize_square
from mmcore.media.text import text_of
from mmcore.sample import Json, Sample, sha256_hex

OURS = "model.json"
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
TOKENIZER_NAME = "tokenizer.json"
PREPROCESSOR_NAME = "preprocessor_config.json"
RATE_HZ = 16_000
_COMMIT = re.compile(r"[0-9a-f]{40}")

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class ModelSource:
    """A model by its directory or its name."""

    model: str
    revision: str = ""

    @property
    def is_directory(self) -> bool:
        """Return whether it lies on this machine."""
        return os.path.isdir(self.model)

    @property
    def is_ours(self) -> bool:
        """Return whether it was trained here."""
        return os.path.isfile(os.path.join(self.model, OURS))

    def check(self) -> None:
        """Raise ConfigError for what is neither a directory nor a name with a commit."""
        if not self.is_directory and not _COMMIT.fullmatch(self.revision):
            raise ConfigError(
                f"{self.model} is no directory here. Give one that holds {CONFIG_NAME} and "
                f"{WEIGHTS_NAME}, or a name on the hub with the commit as revision (40 hex digits, "
                "as its page shows): a name alone would mean something else tomorrow."
            )

    def identity(self) -> Json:
        """Return what tells it from others: of a directory what its files hold."""
        self.check()
        if not self.is_directory:
            return {"model": self.model, "revision": self.revision}
        names = (OURS, CONFIG_NAME, WEIGHTS_NAME, TOKENIZER_NAME, PREPROCESSOR_NAME)
        paths = [os.path.join(self.model, name) for name in names]
        return {
            os.path.basename(path): _sha256(path, *_stamp(path))
            for path in paths
            if os.path.isfile(path)
        }

    def file(self, name: str) -> bytes:
        """Return a file of the model; ConfigError when there is none."""
        path = os.path.join(self.model, name)
        if not self.is_directory:
            # its client is heavy, and not needed for directories
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

            try:
                path = hf_hub_download(self.model, name, revision=self.revision)
            except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
                raise ConfigError(f"{self.model} has no {name} to be had: {error}") from error
        try:
            return storage.read(path)
        except StorageError as error:
            raise ConfigError(f"the model {self.model} lacks {name}: {error}") from error

    def preprocessing(self) -> Mapping[str, Any]:
        """Return what a model of ours was shown in training."""
        value: Mapping[str, Any] = json.loads(self.file(OURS))["preprocessing"]
        return value


@dataclass(frozen=True, kw_only=True)
class Shown:
    """How samples are shown to a model that is not ours; ours knows how."""

    side: int = 224
    max_tokens: int = 64
    max_seconds: float = 10.0


def preparation(source: ModelSource, modality: str, shown: Shown) -> Callable[[Sample], Array]:
    """Return the function from a sample to the array that the model is given for a modality."""
    if modality == "text":
        tokenizer = _tokenizer(source)
        max_tokens = source.preprocessing()["max_tokens"] if source.is_ours else shown.max_tokens
        tokenizer.enable_truncation(max_tokens)
        return lambda sample: np.array(tokenizer.encode(text_of(sample)).ids, np.int64)
    if source.is_ours:
        ways = source.preprocessing()
        return _our_image(ways) if modality == "image" else _our_audio(ways)
    if modality == "image":
        return _image(shown.side, "crop")
    return lambda sample: _waveform(sample, shown.max_seconds)


def _image(side: int, fit: Fit) -> Callable[[Sample], Array]:
    needed = needed_for(side, fit)
    return lambda sample: resize_square(picture_of(sample, needed).pixels, side, fit=fit)


def _our_image(ways: Mapping[str, Any]) -> Callable[[Sample], Array]:
    return _image(int(ways["image_side"]), "stretch")


def _our_audio(ways: Mapping[str, Any]) -> Callable[[Sample], Array]:
    return lambda sample: log_mel(
        _waveform(sample, float(ways["max_seconds"]), is_padded=False),
        rate_hz=RATE_HZ,
        num_mels=ways["num_mels"],
        hop_seconds=ways["hop_seconds"],
        window_seconds=ways["window_seconds"],
    )


def _waveform(sample: Sample, max_seconds: float, *, is_padded: bool = True) -> Array:
    """Return sound at 16 kHz, cut; padded with silence to one length, for batches of one shape."""
    waveform, from_hz = audio_of(sample)
    waveform = resample(waveform[: round(max_seconds * from_hz)], from_hz, RATE_HZ)
    length = round(max_seconds * RATE_HZ)
    waveform = waveform[:length]
    return np.pad(waveform, (0, length - len(waveform))) if is_padded else waveform


def _tokenizer(source: ModelSource) -> Tokenizer:
    try:
        return Tokenizer.from_buffer(source.file(TOKENIZER_NAME))
    except ValueError as error:
        raise ConfigError(f"{TOKENIZER_NAME} of {source.model} is no tokenizer: {error}") from error


def _stamp(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=64)
def _sha256(path: str, _size: int, _changed: int) -> str:
    """Return the hash of a file, computed once as long as it does not change."""
    return sha256_hex(storage.read(path))
