"""One idea, one name: the words that docs/glossary.md rules out are used nowhere, quotations aside."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
CODE: Final = sorted(
    path for folder in ("controlplane", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
PROSE: Final = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "vault-config/**/*.*", "roles/**/*.*", "docker-compose.yml", "Dockerfile")
    for path in ROOT.glob(pattern)
    if path.is_file()
)


def listed(beginning: str) -> list[str]:
    """The words of the paragraph of the glossary that begins so."""
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    (paragraph,) = re.findall(rf"^{beginning}.*?(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`]+)`", paragraph)


CHECKED: Final = listed("A test looks for these")
STEMS: Final = listed("No module, folder or class")
PATTERN: Final = re.compile(r"\b(?:" + "|".join(word.replace(" ", "[- ]") for word in CHECKED) + r")s?\b")


def prose(text: str) -> str:
    """`text` in lower case without its quotations: "…", `…`, and blocks of code."""
    return re.sub(r"```.*?```|`[^`\n]*`|\"[^\"\n]*\"|“[^”]*”", " ", text, flags=re.DOTALL).lower()


def words(name: str) -> str:
    """An identifier as words: `sessionToken`, `session_token` and `SESSION_TOKEN` are all `session token`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_+", " ", name).lower().strip()


def spoken(source: str) -> Iterator[str]:
    """What a Python file says in our own words: its names, comments and docstrings, but no other strings."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            yield words(token.string)
        elif token.type == tokenize.COMMENT:
            yield prose(token.string)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield prose(ast.get_docstring(node) or "")


def test_the_glossary_lists_words_to_be_checked() -> None:
    assert len(CHECKED) > 15
    assert len(STEMS) > 10
    for said in ("the bots", "a dry-run", "Service Account of the cluster", "its verdict"):
        assert PATTERN.search(prose(said)), said
    for quoted in ('what others call "service account"', "`whitelist`", "system:serviceaccount:agents", "bottom"):
        assert not PATTERN.search(prose(quoted)), quoted
    assert PATTERN.search(words("newSessionToken"))


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_uses_a_word_that_has_a_better_one(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name == "glossary.md":
        text = text.partition("## Words that are checked")[0]
    assert PATTERN.findall(prose(text)) == []


def test_no_code_uses_a_word_that_has_a_better_one() -> None:
    used = {
        str(path.relative_to(ROOT)): found
        for path in CODE
        if (found := [hit for said in spoken(path.read_text(encoding="utf-8")) for hit in PATTERN.findall(said)])
    }
    assert used == {}


def test_no_module_folder_or_class_is_named_for_being_of_use_to_others() -> None:
    named = {part for path in CODE for part in path.relative_to(ROOT).with_suffix("").parts}
    classes = {
        node.name
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    assert named & set(STEMS) == set()
    assert {name for name in classes if words(name).split()[-1] in STEMS} == set()
