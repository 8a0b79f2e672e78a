"""docs/lint.md: every rule there is, and what it shows is found or fine as it says (C4, C6, Y16, Y22, Y24)."""

import os
import re
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import pytest

from controlplane.engines import engines
from controlplane.issuers.trust.known import known
from controlplane.model.plan import Layout
from controlplane.policies.lint import lint as lint_policies
from controlplane.settings import Settings
from controlplane.sync.lint import ADVICE, FIRM, POLICY
from controlplane.sync.problem import Problem, Severity
from controlplane.sync.review import review
from controlplane.sync.rulebook import RULES

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs" / "lint.md").read_text(encoding="utf-8")
TODAY: Final = date(2026, 1, 5)
_KEY: Final = re.compile(r"(?m)^(?=[a-z_]+:)")


@dataclass(frozen=True, slots=True)
class Example:
    rule: str
    language: str
    says: str
    how: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}-{self.says}"


def block(words: str) -> str:
    (found,) = re.findall(rf"^```{words}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return found


def sections() -> dict[str, str]:
    return dict(re.findall(r"^### (\S+)\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE))


def examples() -> list[Example]:
    shape = re.compile(r"^```(yaml|cedar) (found|fine) ?([a-z-]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [Example(rule, *found) for rule, text in sections().items() for found in shape.findall(text)]


BASE: Final = block("yaml base")
SETTINGS: Final = Settings.model_validate(tomllib.loads(block("toml settings")))


def filled(text: str) -> str:
    """The base document, with the lines of an example in place of those with the same keys."""
    instead = {part.partition(":")[0] for part in _KEY.split(text)}
    kept = [part for part in _KEY.split(BASE) if part.partition(":")[0] not in instead]
    return "".join([*kept, text])


def problems(directory: Path, example: Example) -> tuple[Problem, ...]:
    roles = directory / "roles"
    if example.how == "beside-shipped":
        shutil.copytree(ROOT / "roles", roles)
    roles.mkdir(exist_ok=True)
    if example.language == "cedar":
        (roles / "policies").mkdir()
        (roles / "policies" / "some.cedar").write_text(example.text, encoding="utf-8")
        return lint_policies(roles / "policies", ())[1]
    if example.how == "beside-gateway":
        (roles / "gateway-signing.yaml").write_text(block("yaml beside-gateway"), encoding="utf-8")
    (roles / "tiers.toml").write_text(block("toml tiers"), encoding="utf-8")
    text = example.text if example.how == "whole" else filled(example.text)
    name = "shop-agent"
    if example.how == "named" and (named := re.search(r"^entitlement: (\S+)$", text, re.MULTILINE)):
        name = named[1]
    (roles / f"{name}.yaml").write_text(text, encoding="utf-8")
    found = review(
        roles,
        SETTINGS.vault.layout,
        engines(),
        today=TODAY,
        issuers=known(SETTINGS.issuers),
        access=[rule.rule for rule in SETTINGS.access],
    ).problems
    return tuple(problem for problem in found if problem.file == f"{name}.yaml")


@pytest.mark.parametrize("example", [each for each in examples() if each.says == "found"], ids=str)
def test_what_the_page_says_is_found_is_found_c4(tmp_path: Path, example: Example) -> None:
    found = [problem for problem in problems(tmp_path, example) if problem.rule == example.rule]
    assert found
    told = " ".join(sections()[example.rule].split())
    warned = "*Warning" in told or "where it is a warning" in told
    assert {problem.severity for problem in found} == {Severity.WARNING if warned else Severity.ERROR}
    assert ("unless excepted" in told) == (example.rule in POLICY)


@pytest.mark.parametrize("example", [each for each in examples() if each.says == "fine"], ids=str)
def test_what_the_page_says_is_fine_is_fine_c4(tmp_path: Path, example: Example) -> None:
    assert problems(tmp_path, example) == ()


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_on_the_page_with_what_it_finds(rule: str) -> None:
    section, row = sections().get(rule), f'| <a id="{rule}"></a>`{rule}` | {RULES[rule]} |'
    assert (section is None) == (row in PAGE)
    if section is not None:
        assert " ".join(section.split()).startswith(RULES[rule][0].upper() + RULES[rule][1:] + ".")
        told = [each.says for each in examples() if each.rule == rule]
        alone = "cedar" in section or "whole" in section  # what is fine there stands under another rule
        assert told == ["found", "fine"] or (alone and told == ["found"])


def test_the_page_has_no_rule_that_there_is_not() -> None:
    assert set(sections()) <= set(RULES)
    assert {*FIRM, *POLICY, *ADVICE} <= set(RULES)


AWRY: Final[dict[str, Callable[[Path], object]]] = {
    "too-large": lambda at: (at / "shop-agent.yaml").write_text("#" * 300_000),
    "not-utf-8": lambda at: (at / "shop-agent.yaml").write_bytes("owner: Müller".encode("latin-1")),
    "file-name": lambda at: (at / "orders.yaml").write_text(BASE),
    "name-collision": lambda at: [(at / f"{name}.yaml").write_text(BASE) for name in ("Shop-Agent", "shop-agent")],
    "outside": lambda at: (at / "shop-agent.yaml").symlink_to("/etc/passwd"),
    "not-a-file": lambda at: os.mkfifo(at / "shop-agent.yaml"),
    "unreadable": lambda at: (at / "shop-agent.yaml").symlink_to(at / "nothing.yaml"),
    "no-policies": lambda at: shutil.rmtree(at / "policies"),
    "unknown-entitlement": lambda at: (at / "policies" / "entitlements" / "gone.cedar").write_text(""),
    "unknown-folder": lambda at: (at / "policies" / "old").mkdir(),
    "stale-schema": lambda at: (at / "policies" / "shorthold.cedarschema").write_text("entity X;"),
    "duplicate-id": lambda at: shutil.copy(at / "policies" / "guardrails.cedar", at / "policies" / "other.cedar"),
}


@pytest.mark.parametrize("rule", AWRY)
def test_what_is_wrong_with_files_is_found_and_the_shipped_ones_are_fine_y30(tmp_path: Path, rule: str) -> None:
    roles = Path(shutil.copytree(ROOT / "roles", tmp_path / "roles"))
    assert all_rules(roles) == set()
    AWRY[rule](roles)
    assert rule in all_rules(roles)


def all_rules(roles: Path) -> set[str]:
    found = review(roles, Layout(mounts={"database": "database", "pki": "pki"}), engines(), today=TODAY)
    names = {item.entitlement.name for item in found.compiled}
    return {problem.rule for problem in (*found.problems, *lint_policies(roles / "policies", names)[1])}


def test_every_other_rule_is_tried_here_or_where_its_server_is() -> None:
    assert set(RULES) - set(sections()) - set(AWRY) == {"unused-intent"}  # tests/unit/test_sync_usage.py


def test_the_base_itself_is_fine(tmp_path: Path) -> None:
    assert problems(tmp_path, Example("", "yaml", "fine", "whole", BASE)) == ()
