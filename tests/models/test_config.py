import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from mmcore.errors import ConfigError
from mmcore.models.config import ImageEncoderConfig, LossConfig, ModelConfig


def test_a_configuration_needs_no_torch() -> None:
    code = "import sys, mmcore.models.config; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_modalities_are_those_that_have_an_encoder() -> None:
    assert ModelConfig().modalities == ("image", "text", "audio")
    assert ModelConfig(text=None).modalities == ("image", "audio")


def test_a_model_without_encoders_is_refused() -> None:
    with pytest.raises(ConfigError, match="no encoder"):
        ModelConfig(image=None, text=None, audio=None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dropout": 1.0}, "model.dropout=1.0"),
        ({"embedding_dim": 0}, "model.embedding_dim=0"),
        ({"loss": LossConfig(temperature=0.0)}, "temperature=0.0"),
    ],
)
def test_a_value_out_of_range_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**fields)  # type: ignore[arg-type]


def test_an_unknown_key_of_a_recipe_is_refused() -> None:
    with pytest.raises(ValidationError, match="depth"):
        TypeAdapter(ModelConfig).validate_python({"image": {"depth": [1]}})


def test_two_configurations_share_no_options() -> None:
    assert ImageEncoderConfig().options is not ImageEncoderConfig().options
