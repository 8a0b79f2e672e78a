"""Loading a directory of entitlements: every file is looked at and every error is shown, each at its place."""

import os
from pathlib import Path

import pytest

from controlplane.engines import scope_models
from controlplane.model.errors import ConfigurationError
from controlplane.sync.load import Loaded, load

SOUND = """\
entitlement: orders-read
owner: team-sales@acme.example
purpose: Read orders.
intents: [answer-question]
risk: low
eligibility:
  - issuer: dev
    subject: repo:acme/agent:ref:refs/heads/main
scopes:
  - name: orders
    engine: database
    connection: orders
    privileges:
      - select on table sales.orders
ttl: {default: 5m, max: 15m}
"""


def loaded(directory: Path) -> Loaded:
    return load(directory, scope_models())


def problems(directory: Path, text: str) -> list[tuple[int, int, str, str]]:
    (directory / "orders-read.yaml").write_text(text)
    found = loaded(directory)
    assert not found.sources
    return [(problem.line, problem.column, problem.rule, problem.message) for problem in found.problems]


def changed(old: str, new: str) -> str:
    assert SOUND.count(old) == 1
    return SOUND.replace(old, new)


def test_a_sound_file_gives_an_entitlement_and_no_problem(tmp_path: Path) -> None:
    (tmp_path / "orders-read.yaml").write_text(SOUND)
    found = loaded(tmp_path)
    assert [entitlement.name for entitlement in found.entitlements] == ["orders-read"]
    assert found.problems == ()


def test_all_errors_of_all_files_are_shown_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("a: 1\na: 2\n")
    (tmp_path / "a.yaml").write_text(changed("risk: low", "risk: lowest").replace("5m", "1:30"))
    (tmp_path / "c.yaml").write_text(changed("owner: team", "owned: team").replace("risk: low", "risk: lowest"))
    (tmp_path / "orders-read.yaml").write_text(SOUND)
    found = loaded(tmp_path)
    assert [(problem.file, problem.line, problem.rule) for problem in found.problems] == [
        ("a.yaml", 15, "ambiguous"),
        ("b.yaml", 2, "duplicate-key"),
        ("c.yaml", 1, "missing-owner"),
        ("c.yaml", 2, "unknown-key"),
        ("c.yaml", 5, "invalid-value"),
    ]
    assert len(found.sources) == 1


@pytest.mark.parametrize(
    ("edit", "place", "rule", "words"),
    [
        pytest.param(("risk: low", "risk: low\naprovals: 2"), (6, 1), "unknown-key", "aprovals", id="Y07 at the top"),
        pytest.param(("max: 15m", "max: 15m, min: 1m"), (15, 30), "unknown-key", "min", id="Y07 deep"),
        pytest.param(
            ("    subject: repo", "    subjects: repo"), (8, 5), "unknown-key", "subjects", id="Y07 in a list"
        ),
        pytest.param(
            ("orders\n    privileges", "orders\n    table: x\n    privileges"),
            (13, 5),
            "unknown-key",
            "table",
            id="Y07 in a scope",
        ),
        pytest.param(
            ("    privileges:\n      - select on table sales.orders\n", ""),
            (10, 5),
            "missing-key",
            "privileges",
            id="missing in a scope",
        ),
        pytest.param(
            ("select on table sales.orders", "all on table sales.orders"),
            (14, 9),
            "over-scope.all",
            "ALL",
            id="a privilege that is none",
        ),
        pytest.param(
            ("engine: database", "engine: databases"), (10, 5), "invalid-value", "database", id="no such engine"
        ),
        pytest.param(
            ("default: 5m", "default: '1:30'"), (15, 16), "invalid-value", "its unit", id="Y05 base 60 in quotes"
        ),
        pytest.param(("default: 5m", "default: 5"), (15, 16), "invalid-value", "with its unit", id="no unit"),
        pytest.param(("default: 5m", "default: 20m"), (15, 6), "invalid-value", "longer", id="default above maximum"),
        pytest.param(("max: 15m", "max: 9h"), (15, 25), "invalid-value", "8 hours", id="above every ceiling"),
        pytest.param(
            ("max: 15m}", "max: 15m}\napproval: {quorum: true, from: ['group:x']}"),
            (16, 20),
            "invalid-value",
            "integer",
            id="true is no number",
        ),
        pytest.param(
            ("max: 15m}", "max: 15m}\napproval: {quorum: '1', from: ['group:x']}"),
            (16, 20),
            "invalid-value",
            "integer",
            id="text is no number",
        ),
        pytest.param(
            ("subject: repo:acme/agent:ref:refs/heads/main", "subject: {glob: '**'}"),
            (8, 21),
            "invalid-value",
            "anybody",
            id="a glob for anybody",
        ),
        pytest.param(
            ("subject: repo:acme/agent:ref:refs/heads/main", "subject: {globs: 'x*'}"),
            (8, 15),
            "unknown-key",
            "globs",
            id="a glob that is none",
        ),
        pytest.param(
            ("subject: repo:acme/agent:ref:refs/heads/main", "subject: 5"),
            (8, 14),
            "invalid-value",
            "a text",
            id="a number for a subject",
        ),
        pytest.param(
            ("entitlement: orders-read", "entitlement: orders-reads"),
            (1, 14),
            "file-name",
            "orders-reads.yaml",
            id="another name than the file's",
        ),
        pytest.param(
            ("entitlement: orders-read", "entitlement: ../x"), (1, 14), "invalid-value", "small letters", id="Y10 path"
        ),
        pytest.param(
            ("entitlement: orders-read", "entitlement: 'a b'"),
            (1, 14),
            "invalid-value",
            "small letters",
            id="Y10 space",
        ),
        pytest.param(
            ("[answer-question]", "[answer-question, answer-question]"),
            (4, 10),
            "invalid-value",
            "twice",
            id="an intent twice",
        ),
    ],
)
def test_an_error_stands_at_its_place(
    tmp_path: Path, edit: tuple[str, str], place: tuple[int, int], rule: str, words: str
) -> None:
    found = problems(tmp_path, changed(*edit))
    assert (*place, rule) in [problem[:3] for problem in found], found
    assert words in next(problem[3] for problem in found if problem[:2] == place)


def test_nothing_else_is_said_of_a_scope_whose_engine_is_unknown(tmp_path: Path) -> None:
    assert len(problems(tmp_path, changed("engine: database", "engine: databases"))) == 1


def test_names_that_differ_in_case_only_are_refused_on_both_sides(tmp_path: Path) -> None:
    (tmp_path / "orders-read.yaml").write_text(SOUND)
    (tmp_path / "Orders-Read.yaml").write_text(SOUND)
    found = loaded(tmp_path)
    assert not found.sources
    assert [problem.rule for problem in found.problems] == ["name-collision"] * 2


def test_a_file_with_the_other_ending_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    (tmp_path / "orders-read.yml").write_text(SOUND)
    assert [problem.rule for problem in loaded(tmp_path).problems] == ["file-name"]


def test_links_pipes_directories_and_vanished_files_are_errors_y30(tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text(SOUND)
    directory = tmp_path / "roles"
    directory.mkdir()
    (directory / "orders-read.yaml").symlink_to(outside)
    os.mkfifo(directory / "pipe.yaml")
    (directory / "folder.yaml").mkdir()
    (directory / "gone.yaml").symlink_to(directory / "never-was")
    found = loaded(directory)
    assert not found.sources
    assert [(problem.file, problem.rule) for problem in found.problems] == [
        ("folder.yaml", "unreadable"),
        ("gone.yaml", "unreadable"),
        ("orders-read.yaml", "outside"),
        ("pipe.yaml", "not-a-file"),
    ]


def test_a_link_inside_the_directory_is_fine_because_kubernetes_mounts_files_so(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "orders-read.yaml").write_text(SOUND)
    (tmp_path / "orders-read.yaml").symlink_to("..data/orders-read.yaml")
    assert len(loaded(tmp_path).sources) == 1


def test_a_directory_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        loaded(tmp_path / "nowhere")
