"""Configurations: what wins over what, and that every mistake is said with its place."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field

from mmcore.config import Loaded, load_config
from mmcore.errors import ConfigError


class Optimizer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    learning_rate: float = 0.1
    betas: list[float] = [0.9, 0.95]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    epochs: Annotated[int, Field(ge=1)] = 1
    optimizer: Optimizer = Optimizer()
    stages: dict[str, dict[str, object] | None] = {}


def write(directory: Path, text: str, name: str = "a.yaml") -> str:
    file = directory / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return str(file)


def load(file: str, *overrides: str) -> Settings:
    loaded = load_config(file, Settings, overrides=overrides)
    assert not loaded.problems
    return loaded.value


def complaint(file: str, *overrides: str) -> str:
    """What a wrong file is refused with, in full."""
    with pytest.raises(ConfigError) as caught:
        _refuse(file, overrides)
    return str(caught.value)


def _refuse(file: str, overrides: Sequence[str]) -> None:
    loaded = load_config(file, Settings, overrides=overrides)
    raise loaded.error(loaded.problems)


def origin(loaded: Loaded[Settings], path: str) -> str:
    typed = tuple(int(part) if part.isdecimal() else part for part in path.split("."))
    return str(loaded.origins[typed])


def test_values_and_defaults_are_read(tmp_path: Path) -> None:
    settings = load(write(tmp_path, "name: x\noptimizer: {betas: [0.5]}\n"))
    assert settings == Settings(name="x", optimizer=Optimizer(betas=[0.5]))


def test_groups_merge_over_what_is_extended_and_lists_replace(tmp_path: Path) -> None:
    write(
        tmp_path,
        "name: base\nepochs: 3\noptimizer: {learning_rate: 0.5, betas: [0.1, 0.2]}\n",
        "base.yaml",
    )
    file = write(tmp_path, "extends: base.yaml\nname: own\noptimizer: {betas: [0.3]}\n")
    settings = load(file)
    assert (settings.name, settings.epochs) == ("own", 3)
    assert settings.optimizer == Optimizer(learning_rate=0.5, betas=[0.3])


def test_extends_is_a_chain_relative_to_each_file_and_of_several_the_last_wins(
    tmp_path: Path,
) -> None:
    write(tmp_path, "name: root\nepochs: 1\n", "base/root.yaml")
    write(tmp_path, "extends: root.yaml\nepochs: 2\n", "base/two.yaml")
    write(tmp_path, "epochs: 7\n", "seven.yaml")
    file = write(tmp_path, "extends: [base/two.yaml, seven.yaml]\n")
    assert load(file) == Settings(name="root", epochs=7)


def test_a_circle_of_extends_is_refused_with_its_members(tmp_path: Path) -> None:
    file = write(tmp_path, "extends: b.yaml\nname: a\n")
    other = write(tmp_path, "extends: a.yaml\n", "b.yaml")
    message = complaint(file)
    assert f"{file} -> {other}" in message
    assert "Break the circle" in message


def test_extends_of_anything_but_files_is_refused_with_its_place(tmp_path: Path) -> None:
    file = write(tmp_path, "name: a\nextends: 3\n")
    assert complaint(file) == f"{file}:2:1: extends: expected a file or a list of files, found 3."


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("epochs=4", Settings(name="x", epochs=4)),
        ("name=12 monkeys", Settings(name="12 monkeys")),
        ("optimizer.betas=[0.1, 0.2]", Settings(name="x", optimizer=Optimizer(betas=[0.1, 0.2]))),
        ("optimizer.betas.1=0.5", Settings(name="x", optimizer=Optimizer(betas=[0.25, 0.5]))),
        ("optimizer={learning_rate: 2}", Settings(name="x", optimizer=Optimizer(learning_rate=2))),
    ],
)
def test_set_has_the_last_word_and_is_typed_as_yaml(
    tmp_path: Path, override: str, expected: Settings
) -> None:
    file = write(tmp_path, "name: x\noptimizer:\n  betas: [0.25, 0.95]\n")
    settings = load(file, override)
    if "betas" not in override:
        expected.optimizer.betas = settings.optimizer.betas
    assert settings == expected


def test_set_reaches_into_a_group_that_was_named_without_fields(tmp_path: Path) -> None:
    file = write(tmp_path, "name: x\nstages:\n  min_side:\n")
    assert load(file, "stages.min_side.min_side=3").stages == {"min_side": {"min_side": 3}}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("epochs", "expected a.b=value"),
        ("=3", "expected a.b=value"),
        ("epochs.deep=1", "epochs is 2, not a group"),
        ("optimizer.betas.2=1", "'2' is no index into a list of 2"),
        ("optimizer.betas.x.y=1", "'x' is no index into a list of 2"),
        ("epochs=[1", "'[1' is not YAML"),
        ("epochs=many", "--set: epochs: Input should be a valid integer"),
        ("epoch=1", "--set: epoch: unknown key. Did you mean 'epochs'?"),
    ],
)
def test_a_wrong_set_is_refused(tmp_path: Path, override: str, said: str) -> None:
    file = write(tmp_path, "name: x\nepochs: 2\noptimizer: {betas: [0.9, 0.95]}\n")
    assert said in complaint(file, override)


def test_environment_variables_are_read_with_a_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_EPOCHS", "5")
    monkeypatch.delenv("TEST_NAME", raising=False)
    file = write(
        tmp_path, 'name: "${env:TEST_NAME:-a}-${env:TEST_EPOCHS}"\nepochs: ${env:TEST_EPOCHS}\n'
    )
    assert load(file) == Settings(name="a-5", epochs=5)


def test_every_environment_variable_that_is_not_set_is_named_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TEST_ONE", "TEST_TWO"):
        monkeypatch.delenv(name, raising=False)
    file = write(tmp_path, "name: ${env:TEST_ONE}\nstages:\n  a: {b: [1, '${env:TEST_TWO}']}\n")
    first, second = complaint(file).splitlines()
    assert first.startswith(f"{file}:1:1: name: the environment variable TEST_ONE is not set")
    assert second.startswith(f"{file}:3:14: stages.a.b.1: the environment variable TEST_TWO")
    assert "write ${env:TEST_TWO:-default}" in second


def test_every_mistake_is_said_at_once_with_file_line_column_and_a_suggestion(
    tmp_path: Path,
) -> None:
    file = write(tmp_path, "name: x\nepochs: 0\noptimizer:\n  learning_rat: 0.5\n  betas: high\n")
    lines = complaint(file).splitlines()
    assert len(lines) == 3
    assert f"{file}:2:1: epochs: Input should be greater than or equal to 1 (got 0)." in lines
    assert (
        f"{file}:4:3: optimizer.learning_rat: unknown key. Did you mean 'learning_rate'?" in lines
    )
    assert f"{file}:5:3: optimizer.betas: Input should be a valid list (got 'high')." in lines


def test_a_name_that_is_like_nothing_is_answered_with_what_is_allowed(tmp_path: Path) -> None:
    file = write(tmp_path, "name: x\nqqq: 1\n")
    assert complaint(file).endswith("unknown key. Allowed: epochs, name, optimizer, stages.")


def test_a_mistake_in_an_extended_file_is_placed_there(tmp_path: Path) -> None:
    base = write(tmp_path, "name: x\n\nepochz: 1\n", "base.yaml")
    file = write(tmp_path, "extends: base.yaml\n")
    assert complaint(file).startswith(f"{base}:3:1: epochz: unknown key")


def test_a_missing_key_is_said(tmp_path: Path) -> None:
    file = write(tmp_path, "epochs: 1\n")
    assert complaint(file) == f"{file}: name: this key is required and is not there."


def test_what_is_sound_is_still_there_beside_the_problems(tmp_path: Path) -> None:
    loaded = load_config(write(tmp_path, "name: x\nepochs: 0\nodd: 1\n"), Settings)
    assert len(loaded.problems) == 2
    assert loaded.value == Settings(name="x")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"name: [1\nepochs: 2\n", "a.yaml:2:"),
        (b"name: x\nname: y\n", "a.yaml:2:1: not YAML: found duplicate key"),
        (b"name: \xff\xfe\n", "a.yaml: not UTF-8 text (invalid start byte at byte 6)"),
        (b"- a\n- b\n", "a.yaml: expected `key: value` lines at the top, found a list"),
        (b"", "a.yaml: expected `key: value` lines at the top, found nothing"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(data)
    assert said in complaint(str(file))


def test_a_missing_file_is_answered_with_the_one_that_was_meant(tmp_path: Path) -> None:
    file = write(tmp_path, "name: x\n", "stamps_tiny.yaml")
    message = complaint(str(tmp_path / "stamp_tiny.yaml"))
    assert "no such file" in message
    assert f"Did you mean {file!r}?" in message


def test_each_value_remembers_where_it_was_written(tmp_path: Path) -> None:
    base = write(tmp_path, "name: x\nepochs: 1\noptimizer:\n  betas: [0.1, 0.2]\n", "base.yaml")
    file = write(tmp_path, "extends: base.yaml\nepochs: 2\noptimizer:\n  learning_rate: 3\n")
    loaded = load_config(file, Settings, overrides=["stages={a: {b: 1}}"])
    assert origin(loaded, "name") == f"{base}:1:1"
    assert origin(loaded, "epochs") == f"{file}:2:1"
    assert origin(loaded, "optimizer.learning_rate") == f"{file}:4:3"
    assert origin(loaded, "optimizer.betas.1") == f"{base}:4:16"
    assert origin(loaded, "stages.a.b") == "--set"


def test_a_list_that_is_replaced_takes_its_origins_along(tmp_path: Path) -> None:
    write(tmp_path, "name: x\noptimizer: {betas: [0.1, 0.2]}\n", "base.yaml")
    file = write(tmp_path, "extends: base.yaml\noptimizer: {betas: [0.3]}\n")
    loaded = load_config(file, Settings)
    assert origin(loaded, "optimizer.betas.0").startswith(f"{file}:2:")
    assert ("optimizer", "betas", 1) not in loaded.origins


def test_anchors_and_merge_keys_of_yaml_work(tmp_path: Path) -> None:
    file = write(
        tmp_path, "name: x\nstages:\n  a: &a {min: 1, max: 2}\n  b:\n    <<: *a\n    max: 3\n"
    )
    loaded = load_config(file, Settings)
    assert loaded.value.stages == {"a": {"min": 1, "max": 2}, "b": {"min": 1, "max": 3}}
    assert origin(loaded, "stages.b.max") == f"{file}:6:5"


def test_a_value_with_a_tag_is_refused_as_data(tmp_path: Path) -> None:
    file = write(tmp_path, "name: !!python/object/apply:os.system [true]\n")
    assert f"{file}:1:1: name:" in complaint(file)
