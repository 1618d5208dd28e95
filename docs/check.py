"""Holds the documents to the code: `python docs/check.py`. Exit code 1 and file:line per problem.

Checked are: relative links and anchors; `mm` commands with their options, `make` targets, tests and
files that are named in code; every YAML block, and as a recipe where its fence says `yaml recipe`
(or `yaml recipe-part`, which is laid over a small whole one); every Python block, which must
compile; and the blocks of one document that name a file, which must pass as tests, ruff's too.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from markdown_it import MarkdownIt
from markdown_it.token import Token
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from typer.core import TyperGroup

from mmcore.cli.commands import COMMANDS
from mmcore.errors import ConfigError
from mmcore.recipe.build import load_recipe
from mmcore.recipe.components import SHORT_NAMES

ROOT = Path(__file__).resolve().parent.parent
WHOLE_RECIPE = """\
name: example
source: {path: corpus, layout: {use: folder}}
split: {together: [image]}
tokenizer: {}
"""
"""What a `yaml recipe-part` is laid over."""
AT_THE_TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
SHELLS = frozenset({"sh", "bash", "console"})
_COMMAND = re.compile(r"(?:^|[|;&(] *)(?:\$ )?(?:[A-Z_]+=\S* )*(?:\.venv/bin/)?((?:mm|make) .*)")
_FILE = re.compile(
    r"(?:mmcore|pipelines|tests|docs|infra|configs|\.github|\.ci)/[\w./-]+\.\w+(::\w+)?"
)
_END_OF_COMMAND = re.compile(r"[|;&#)>]")


@dataclass(frozen=True, order=True)
class Problem:
    """Something that a document says and that does not hold."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    line: int
    """Of its first line of content."""
    info: tuple[str, ...]
    """The words behind the fence."""
    text: str


@dataclass(frozen=True)
class Document:
    """What of a document can be checked."""

    file: str
    """Relative to the root of the repository."""
    text: str
    links: tuple[tuple[int, str], ...]
    code: tuple[tuple[int, str], ...]
    """Inline code."""
    blocks: tuple[Block, ...]
    anchors: frozenset[str]


def read_document(root: Path, file: str) -> Document:
    """Parse a document."""
    text = (root / file).read_text(encoding="utf-8")
    links: list[tuple[int, str]] = []
    code: list[tuple[int, str]] = []
    blocks: list[Block] = []
    anchors: list[str] = []
    line = 1
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for before, token in zip([None, *tokens], tokens, strict=False):
        line = token.map[0] + 1 if token.map else line
        if token.type == "fence":
            blocks.append(Block(line + 1, tuple(token.info.split()), token.content))
        elif token.type == "inline":
            if before is not None and before.type == "heading_open":
                anchors.append(slug(token, anchors))
            for at, child in _numbered(token, line):
                if child.type == "link_open":
                    links.append((at, str(child.attrs["href"])))
                elif child.type == "image":
                    links.append((at, str(child.attrs["src"])))
                elif child.type == "code_inline":
                    code.append((at, child.content))
    return Document(file, text, tuple(links), tuple(code), tuple(blocks), frozenset(anchors))


def slug(heading: Token, taken: list[str]) -> str:
    """Return the anchor of a heading as GitHub makes it."""
    words = "".join(child.content for child in heading.children or [])
    plain = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
    num_before = Counter(re.sub(r"-\d+$", "", name) for name in taken)[plain]
    return f"{plain}-{num_before}" if num_before else plain


def _numbered(inline: Token, line: int) -> Iterator[tuple[int, Token]]:
    for child in inline.children or []:
        line += child.type in ("softbreak", "hardbreak")
        yield line, child


def check(root: Path = ROOT) -> list[Problem]:
    """Return every problem of the documents below a root, sorted."""
    inner = [f"docs/{path.name}" for path in sorted((root / "docs").glob("*.md"))]
    documents = {file: read_document(root, file) for file in [*AT_THE_TOP, *inner]}
    problems: list[Problem] = []
    for document in documents.values():
        problems += _characters(document)
        problems += _links(document, documents, root)
        problems += _commands(document, root)
        problems += _files(document, root)
        problems += _yaml(document, root)
        problems += _python(document)
        problems += _examples(document, root)
    problems += _short_names(documents["docs/recipes.md"])
    return sorted(set(problems))


def _characters(document: Document) -> Iterator[Problem]:
    for number, line in enumerate(document.text.splitlines(), 1):
        odd = sorted({char for char in line if not char.isascii()})
        if odd:
            yield Problem(document.file, number, f"not ASCII: {' '.join(map(ascii, odd))}")


def _links(document: Document, documents: Mapping[str, Document], root: Path) -> Iterator[Problem]:
    for line, link in document.links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = os.path.normpath(os.path.join(os.path.dirname(document.file), path))
        target = target if path else document.file
        if target.startswith("..") or not (root / target).exists():
            yield Problem(document.file, line, f"link to {link}: there is no {target}")
        elif anchor and target not in documents:
            yield Problem(document.file, line, f"link to {link}: an anchor outside the documents")
        elif anchor and anchor not in documents[target].anchors:
            known = ", ".join(sorted(documents[target].anchors))
            yield Problem(document.file, line, f"link to {link}: {target} has only {known}")


def _commands(document: Document, root: Path) -> Iterator[Problem]:
    lines = [(line, code) for line, code in document.code]
    for block in document.blocks:
        if block.info[:1] and block.info[0] in SHELLS:
            lines += list(enumerate(block.text.splitlines(), block.line))
    for line, text in lines:
        for command in _COMMAND.findall(text):
            words = shlex.split(_END_OF_COMMAND.split(command)[0])
            wrong = _wrong_target(words, root) if words[0] == "make" else _wrong_mm(words)
            if wrong:
                yield Problem(document.file, line, f"{shlex.join(words)}: {wrong}")


def _wrong_target(words: list[str], root: Path) -> str:
    targets = re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), flags=re.MULTILINE)
    named = [word for word in words[1:] if "=" not in word]
    unknown = [word for word in named if word not in targets]
    return f"the Makefile has no target {unknown[0]}" if unknown else ""


def _wrong_mm(words: list[str]) -> str:
    """Return what is wrong with a command line of `mm`, as far as names go."""
    name, rest = words[1], words[2:]
    if not re.fullmatch("[a-z]+(-[a-z]+)*", name):
        return "" if name in ("--help", "--version", "COMMAND") else "no such option"
    if name not in COMMANDS:
        return "mm has no such command"
    command = _parser_of(name)
    if isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        if rest[0] not in command.commands:
            return f"mm {name} has no command {rest[0]}"
        command = command.commands[rest[0]]
    known = {spelling for parameter in command.params for spelling in parameter.opts}
    options = [word.partition("=")[0] for word in rest if word.startswith("-")]
    unknown = [option for option in options if option not in {*known, "--help"}]
    return f"there is no option {unknown[0]}" if unknown else ""


@lru_cache
def _parser_of(name: str) -> Any:
    return typer.main.get_command(import_module(COMMANDS[name].module).app)


def _files(document: Document, root: Path) -> Iterator[Problem]:
    shown = {_named_file(block) for block in document.blocks}
    for line, code in document.code:
        if not _FILE.fullmatch(code):
            continue
        path, _, test = code.partition("::")
        if path in shown or "NAME" in path:
            continue
        if not (root / path).is_file():
            yield Problem(document.file, line, f"there is no {path}")
        elif test and f"def {test}(" not in (root / path).read_text(encoding="utf-8"):
            yield Problem(document.file, line, f"{path} has no {test}")


def _short_names(document: Document) -> Iterator[Problem]:
    said = {code for _, code in document.code}
    for name in SHORT_NAMES:
        if name not in said:
            yield Problem(document.file, 1, f"the short name {name} is not in the table")


def _yaml(document: Document, root: Path) -> Iterator[Problem]:
    for block in document.blocks:
        if block.info[:1] != ("yaml",):
            continue
        try:
            YAML(typ="safe", pure=True).load(block.text)
        except YAMLError as error:
            yield Problem(document.file, block.line, f"not YAML: {error}")
            continue
        kind = block.info[1] if len(block.info) > 1 else ""
        if kind not in ("recipe", "recipe-part"):
            continue
        with tempfile.TemporaryDirectory() as directory:
            shutil.copytree(root / "configs" / "recipes", directory, dirs_exist_ok=True)
            above = ""
            if kind == "recipe-part":
                above = "extends: whole.yaml\n"
                Path(directory, "whole.yaml").write_text(WHOLE_RECIPE)
            file = Path(directory, "example.yaml")
            file.write_text(above + block.text)
            try:
                load_recipe(str(file))
            except ConfigError as error:
                found = str(error).replace(f"{directory}/", "")
                yield Problem(document.file, block.line, f"not a recipe: {found}")


def _python(document: Document) -> Iterator[Problem]:
    for block in document.blocks:
        if block.info[:1] == ("python",):
            try:
                compile(block.text, document.file, "exec")
            except SyntaxError as error:
                line = block.line + (error.lineno or 1) - 1
                yield Problem(document.file, line, f"not Python: {error.msg}")


def _named_file(block: Block) -> str:
    """Return the file that a block says it is: `python file=mmcore/clean/x.py`."""
    return next((word.removeprefix("file=") for word in block.info if word.startswith("file=")), "")


def _examples(document: Document, root: Path) -> Iterator[Problem]:
    """Put the blocks that name a file into a folder of their own, and run what tests there are."""
    files = {_named_file(block): block for block in document.blocks if _named_file(block)}
    if not files:
        return
    with tempfile.TemporaryDirectory() as directory:
        packages = set()
        for name, block in sorted(files.items()):
            path = Path(directory, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
            if name.startswith("mmcore/"):
                packages.add(os.path.dirname(name))
        Path(directory, "conftest.py").write_text(_conftest(sorted(packages)))
        first = min(block.line for block in files.values())
        ruff = [sys.executable, "-m", "ruff"]
        options = ["--no-cache", "--config", str(root / "pyproject.toml")]
        options += ["--config", "lint.isort.known-first-party=['mmcore']"]
        names = sorted(files)
        for command in (
            [*ruff, "check", "--quiet", *options, *names],
            [*ruff, "format", "--check", "--quiet", "--diff", *options, *names],
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."],
        ):
            done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
            if done.returncode != 0:
                said = (done.stdout + done.stderr).strip()
                yield Problem(document.file, first, f"the example fails: {command[2]}\n{said}")


def _conftest(packages: list[str]) -> str:
    """Return a conftest.py by which the files of an example are found as parts of our packages."""
    lines = ["from importlib import import_module", "from pathlib import Path", ""]
    for package in packages:
        name = package.replace("/", ".")
        lines.append(
            f"import_module({name!r}).__path__.append(str(Path(__file__).parent / {package!r}))"
        )
    return "\n".join([*lines, ""])


def main() -> int:
    """Check the documents and say what is wrong."""
    problems = check()
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems in the documents", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
