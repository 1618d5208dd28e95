"""Tiny models in directories, made once for all tests of models over samples."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Directories as `transformers` writes them, by name."""
    import tiny_hub

    root: Path = tmp_path_factory.mktemp("hub")
    made = {
        "clip": tiny_hub.tiny_clip,
        "resnet": tiny_hub.tiny_resnet,
        "bert": tiny_hub.tiny_bert,
        "wav2vec": tiny_hub.tiny_wav2vec,
    }
    return {name: tiny_hub.save(make(), root / name) for name, make in made.items()}


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory as our training leaves it."""
    import tiny_hub
    import tiny_models

    from mmcore.load.batches import MultimodalLoader
    from mmcore.models.saved import save_model

    directory = tmp_path_factory.mktemp("ours")
    loader = MultimodalLoader(
        image_side=32, max_tokens=12, num_mels=tiny_models.NUM_MELS, max_seconds=0.5
    )
    save_model(str(directory), tiny_models.tiny_model(), preprocessing=dict(loader.identity()))
    tiny_hub.tiny_tokenizer().save(str(directory / "tokenizer.json"))
    return str(directory)
