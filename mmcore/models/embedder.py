"""Arrays to unit vectors by a model: one of `transformers`, or one of ours."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoFeatureExtractor, AutoModel
from transformers.utils.logging import disable_progress_bar

from mmcore.errors import ConfigError
from mmcore.models.saved import load_saved_model
from mmcore.models.source import PREPROCESSOR_NAME, RATE_HZ, Array, ModelSource, Shown

_HALF = (0.5, 0.5, 0.5)
_MAX_MODELS = 2
Embed = Callable[[Sequence[Array]], Array]

disable_progress_bar()  # of loading weights, in the middle of our own


def load_embedder(
    source: ModelSource,
    modality: str,
    shown: Shown,
    *,
    batch_size: int,
    device: str,
    num_threads: int,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
) -> Embed:
    """Return the function from prepared arrays, at most `batch_size`, to unit vectors [N, D].

    Batches are filled up with their first row and rows to one length, so that a row's vector does
    not depend on how many others came with it. ConfigError for a model without that modality.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda, and torch sees no GPU here. Set device: cpu.")
    forward: Callable[[Sequence[Array]], Tensor]
    if source.is_ours:
        forward = _ours(source, modality, device)
    else:
        model = _loaded(source, device)
        if modality == "image":
            forward = _image(model, device, *_colours(source, mean, std))
        elif modality == "text":
            forward = _text(model, device, shown.max_tokens)
        else:
            forward = _audio(model, device, source)

    @torch.inference_mode()
    def embed(arrays: Sequence[Array]) -> Array:
        full = [*arrays, *[arrays[0]] * (batch_size - len(arrays))]
        with _threads(num_threads):
            vectors = functional.normalize(forward(full)[: len(arrays)].float(), dim=1)
        found: Array = vectors.cpu().numpy()
        return found

    return embed


@lru_cache(maxsize=_MAX_MODELS)
def _loaded(source: ModelSource, device: str) -> Any:
    source.check()
    try:
        # safetensors alone: the other format of weights is a pickle, which may run code
        model = AutoModel.from_pretrained(
            source.model,
            revision=source.revision or None,
            local_files_only=source.is_directory,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"the model {source.model} cannot be loaded: {error}") from error
    return model.eval().to(device)


def _image(
    model: Any, device: str, mean: Sequence[float], std: Sequence[float]
) -> Callable[[Sequence[Array]], Tensor]:
    centre, spread = (torch.tensor(one, device=device) * 255 for one in (mean, std))
    ask, _ = _asked(model, "get_image_features", "pixel_values")

    def forward(arrays: Sequence[Array]) -> Tensor:
        pixels = torch.from_numpy(np.stack(arrays)).to(device)
        pixels = ((pixels.float() - centre) / spread).permute(0, 3, 1, 2).contiguous()
        return _pooled(ask(pixel_values=pixels), None)

    return forward


def _text(model: Any, device: str, max_tokens: int) -> Callable[[Sequence[Array]], Tensor]:
    padding = getattr(_text_config(model), "pad_token_id", None) or 0
    ask, gives_vector = _asked(model, "get_text_features", "input_ids")

    def forward(arrays: Sequence[Array]) -> Tensor:
        ids, mask = _padded(arrays, max_tokens, padding, device)
        # what a text encoder pools by itself is its first token, which few are trained for
        return _pooled(ask(input_ids=ids, attention_mask=mask), None if gives_vector else mask)

    return forward


def _audio(model: Any, device: str, source: ModelSource) -> Callable[[Sequence[Array]], Tensor]:
    extractor = None
    if _has(source, PREPROCESSOR_NAME):
        extractor = AutoFeatureExtractor.from_pretrained(
            source.model,
            revision=source.revision or None,
            local_files_only=source.is_directory,
            trust_remote_code=False,
        )
    # whole models of speech have a decoder that is not asked
    encoder = model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model
    ask, _ = _asked(encoder, "get_audio_features", "")

    def forward(arrays: Sequence[Array]) -> Tensor:
        if extractor is None:
            inputs = {"input_values": torch.from_numpy(np.stack(arrays))}
        else:
            inputs = extractor(list(arrays), sampling_rate=RATE_HZ, return_tensors="pt")
        return _pooled(ask(**{name: value.to(device) for name, value in inputs.items()}), None)

    return forward


def _ours(source: ModelSource, modality: str, device: str) -> Callable[[Sequence[Array]], Tensor]:
    model = _saved(source, device)
    if modality not in model.modalities:
        raise ConfigError(
            f"the model {source.model} has no encoder for {modality}, but for "
            f"{', '.join(model.modalities)}."
        )
    encoder, head = model.encoders[modality], model.heads[modality]
    ways = source.preprocessing()
    lengths = {
        "text": int(ways["max_tokens"]),
        "audio": 1 + round(ways["max_seconds"] / ways["hop_seconds"]),
    }

    def forward(arrays: Sequence[Array]) -> Tensor:
        if modality == "image":
            features = encoder(torch.from_numpy(np.stack(arrays)).to(device))
        else:
            padded, mask = _padded(arrays, lengths[modality], 0, device)
            features = encoder(padded, mask.bool())
        embedding: Tensor = head(features.float())[0]
        return embedding

    return forward


@lru_cache(maxsize=_MAX_MODELS)
def _saved(source: ModelSource, device: str) -> Any:
    return load_saved_model(source.model).model.to(device)


def _padded(
    arrays: Sequence[Array], length: int, padding: int, device: str
) -> tuple[Tensor, Tensor]:
    """Return rows of one length, whatever the batch, and a mask of what is not padding."""
    shape = (len(arrays), length, *arrays[0].shape[1:])
    rows = np.full(shape, padding, arrays[0].dtype)
    mask = np.zeros(shape[:2], np.int64)
    for row, array in enumerate(arrays):
        rows[row, : len(array)] = array[:length]
        mask[row, : len(array)] = 1
    return torch.from_numpy(rows).to(device), torch.from_numpy(mask).to(device)


def _asked(model: Any, method: str, argument: str) -> tuple[Callable[..., Any], bool]:
    """Return what gives vectors in the space that modalities share, and that it does.

    Else the model itself, whose states are still to be pooled.
    """
    if hasattr(model, method):
        return getattr(model, method), True
    if argument and model.main_input_name != argument:
        raise ConfigError(
            f"a model of the type {model.config.model_type} takes {model.main_input_name}, not "
            f"{argument}. Take one for this modality."
        )
    return model, False


def _pooled(output: Any, mask: Tensor | None) -> Tensor:
    """Return one vector a row: with a mask the mean over its places, else what the model pools."""
    if isinstance(output, Tensor):
        return output
    pooled = getattr(output, "pooler_output", None)
    if mask is None and pooled is not None:
        return torch.flatten(pooled, start_dim=1)
    states = getattr(output, "last_hidden_state", None)
    if states is None:
        raise ConfigError(f"a model that gives {type(output).__name__} has no vector to take")
    if mask is None:
        return torch.flatten(states.mean(dim=1), start_dim=1)
    weights = mask.to(states.dtype)[:, :, None]
    mean: Tensor = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    return mean


def _colours(
    source: ModelSource, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Sequence[float], Sequence[float]]:
    known = json.loads(source.file(PREPROCESSOR_NAME)) if _has(source, PREPROCESSOR_NAME) else {}
    return mean or known.get("image_mean", _HALF), std or known.get("image_std", _HALF)


def _has(source: ModelSource, name: str) -> bool:
    try:
        source.file(name)
    except ConfigError:
        return False
    return True


def _text_config(model: Any) -> Any:
    return getattr(model.config, "text_config", model.config)


@contextmanager
def _threads(num_threads: int) -> Iterator[None]:
    """Compute on so many threads: sums are cut differently by another number of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
