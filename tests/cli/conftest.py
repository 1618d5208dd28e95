import pytest
from command import Made, Mm, run_mm
from corpus import write_corpus, write_recipe


@pytest.fixture(scope="session")
def mm() -> Mm:
    return run_mm


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    directory = tmp_path_factory.mktemp("cli")
    corpus = write_corpus(directory / "corpus")
    recipe = str(write_recipe(directory / "tiny.yaml", corpus))
    root = directory / "root"
    said = run_mm("run", recipe, "--root", str(root), "--workers", "1", "--json")
    assert said.code == 0, said.err
    return Made(recipe, corpus, root, said)
