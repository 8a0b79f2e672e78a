"""Files of policies: everything that is wrong is found with its place, and grants nothing (Y33: fail closed)."""

import os
import shutil
from pathlib import Path

import pytest

from controlplane.policies import schema
from controlplane.policies.cedar import CedarPolicy
from controlplane.policies.lint import lint
from controlplane.policies.load import load
from controlplane.sync.problem import Severity
from controlplane.testing.policies import BASE, policy_of

SHIPPED = Path(__file__).parents[2] / "roles" / "policies"
NAMES = {"checkout-certificate", "invoice-status", "orders-read", "orders-refund"}
FORBID = '@id("{id}")\n@reason("because")\nforbid (principal, action, resource);\n'


def found(directory: Path) -> list[tuple[str, int, str]]:
    return [(problem.file, problem.line, problem.rule) for problem in load(directory).problems]


def write(directory: Path, **files: str) -> Path:
    policy_of(directory, {name.replace("__", "/") + ".cedar": text for name, text in files.items()})
    return directory


def test_the_shipped_policies_are_sound_and_their_schema_is_that_of_the_code() -> None:
    policies, problems = lint(SHIPPED, NAMES)
    assert problems == ()
    assert policies.common is not None
    assert (SHIPPED / schema.FILE).read_text() == schema.text()


def test_guardrails_hold_for_every_entitlement_and_a_slice_for_its_own_only(tmp_path: Path) -> None:
    policies = load(
        write(tmp_path, base=BASE, more=FORBID.format(id="for-all"), entitlements__one=FORBID.format(id="own-one"))
    )
    assert policies.problems == ()
    one, other = policies.of("one"), policies.of("other")
    assert one is not None
    assert other is not None
    assert set(one.reasons) == {"reviewed-entitlement", "for-all", "own-one"}
    assert set(other.reasons) == {"reviewed-entitlement", "for-all"}
    assert other is policies.of("another")  # one set for all that have no slice


def test_a_revision_tells_what_applies_and_nothing_else(tmp_path: Path) -> None:
    def revisions(directory: str, **files: str) -> tuple[str, str]:
        policies = load(write(tmp_path / directory, base=BASE, **files))
        own, common = policies.of("one"), policies.of("another")
        assert own is not None
        assert common is not None
        return common.revision, own.revision

    common, own = FORBID.format(id="for-all"), FORBID.format(id="own-one")
    before = revisions("before", more=common, entitlements__one=own)
    assert before[0] != before[1]
    assert revisions("moved", a=f"// elsewhere\n{common}", entitlements__one=own) == before
    changed = revisions("changed", more=common, entitlements__one=own.replace("because", "why not"))
    assert changed[0] == before[0]
    assert changed[1] != before[1]


def test_a_broken_slice_stops_its_own_entitlement_only(tmp_path: Path) -> None:
    policies = load(
        write(tmp_path, base=BASE, entitlements__one="forbid (principal", entitlements__two=FORBID.format(id="own-two"))
    )
    assert policies.of("one") is None
    assert policies.of("two") is not None
    assert policies.of("three") is not None


def test_a_broken_guardrail_stops_every_entitlement(tmp_path: Path) -> None:
    policies = load(write(tmp_path, base=BASE, bad="forbid (principal", entitlements__two=FORBID.format(id="own-two")))
    assert [policies.of(name) for name in ("one", "two")] == [None, None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("permit (principal, action, resource", [(1, "not-cedar")]),
        ("// a comment; with a semicolon\n\nfoo;", [(3, "not-cedar")]),
        (";", [(1, "not-cedar")]),
        ("forbid (principal, action, resource);", [(1, "missing-id"), (1, "missing-reason")]),
        ('@id("abc") forbid (principal, action, resource);', [(1, "missing-reason")]),
        ('@id("") @reason("r") forbid (principal, action, resource);', [(1, "missing-id")]),
        ('@id("Not OK") @reason("r") forbid (principal, action, resource);', [(1, "invalid-id")]),
        ('@id("abc") @reason("two\\nlines") forbid (principal, action, resource);', [(1, "invalid-reason")]),
        (f'@id("abc") @reason("{"x" * 301}") forbid (principal, action, resource);', [(1, "invalid-reason")]),
        ('@id("abc") @id("abd") @reason("r") forbid (principal, action, resource);', [(1, "not-cedar")]),
        ('@id("abc") @reason("r") forbid (principal == ?principal, action, resource);', [(1, "template")]),
        (
            '@id("abc") @reason("r") forbid (principal, action == Action::"reqest", resource);',
            [(1, "invalid-policy")] * 2,
        ),
        ('@id("abc") @reason("r") forbid (principal, action, resource is Delivery);', [(1, "invalid-policy")]),
        (
            FORBID.format(id="first-one")
            + '\n  @id("abc") @reason("r") forbid (principal, action, resource)\nwhen { context.nope };',
            [(5, "invalid-policy")] * 2,
        ),
        (FORBID.format(id="abc") + FORBID.format(id="abc"), [(1, "duplicate-id"), (4, "duplicate-id")]),
        ("\tforbid (principal, action, resource);", [(1, "forbidden-character")]),
        ("// \u202e\n", [(1, "forbidden-character")]),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_grants_nothing(
    tmp_path: Path, text: str, expected: list[tuple[int, str]]
) -> None:
    write(tmp_path, base=BASE, bad=text)
    assert found(tmp_path) == [("policies/bad.cedar", line, rule) for line, rule in expected]
    assert load(tmp_path).of("orders-read") is None


def test_semicolons_and_slashes_within_strings_and_comments_end_no_policy(tmp_path: Path) -> None:
    reason = 'a; b // c \\" d;'
    text = f'@id("abc") // e; f "\n@reason("{reason}")\nforbid (principal, action, resource); // ; "\n// g;\n'
    policies = load(write(tmp_path, base=text))
    assert policies.problems == ()
    assert [(each.id, each.reason) for each in policies.statements] == [("abc", 'a; b // c " d;')]


EVERYTHING = [
    "permit (principal, action, resource);",
    'permit (principal, action == Action::"request", resource);',
    "permit (principal is Workload, action, resource is Entitlement);",
    "permit (principal, action, resource) when { true };",
    "permit (principal, action, resource) when { true || context has address };",
    "permit (principal, action, resource) unless { false && context has address };",
    "permit (principal, action, resource) unless { !true };",
    "permit (principal, action, resource) when { principal == principal };",
    "permit (principal, action, resource) when { 1 <= 1 } unless { false };",
    "permit (principal, action, resource) when { principal is Workload };",
]


@pytest.mark.parametrize("text", EVERYTHING)
@pytest.mark.parametrize("where", ["more", "entitlements__orders-read"])
def test_a_policy_that_permits_everything_is_an_error(tmp_path: Path, text: str, where: str) -> None:
    write(tmp_path, **{"base": BASE, where: f'@id("too-much") @reason("r") {text}'})
    assert [rule for _, _, rule in found(tmp_path)] == ["permits-everything"]
    assert load(tmp_path).of("orders-read") is None


@pytest.mark.parametrize(
    "text",
    [
        'permit (principal, action, resource == Entitlement::"orders-read");',
        'permit (principal == Workload::"dev someone", action, resource);',
        "permit (principal, action, resource) when { context has address };",
        "permit (principal, action, resource) unless { context has address };",
        'permit (principal, action, resource) when { resource.risk == Risk::"low" };',
        "forbid (principal, action, resource);",
    ],
)
def test_one_that_names_what_it_is_for_is_none(tmp_path: Path, text: str) -> None:
    write(tmp_path, base=f'@id("narrow-one") @reason("r") {text}')
    assert found(tmp_path) == []


def test_an_id_is_used_once_and_a_slice_that_takes_a_guardrails_is_alone_to_blame(tmp_path: Path) -> None:
    same = FORBID.format(id="same-id")
    write(tmp_path, base=BASE + same, entitlements__one=same, entitlements__two=FORBID.format(id="own-two"))
    assert found(tmp_path) == [("policies/entitlements/one.cedar", 1, "duplicate-id")]
    policies = load(tmp_path)
    assert policies.of("one") is None
    assert policies.of("two") is not None


def test_an_id_in_two_slices_breaks_both(tmp_path: Path) -> None:
    same = FORBID.format(id="same-id")
    write(tmp_path, base=BASE, entitlements__one=same, entitlements__two=same)
    assert [rule for _, _, rule in found(tmp_path)] == ["duplicate-id"] * 2
    assert [load(tmp_path).of(name) is None for name in ("one", "two", "three")] == [True, True, False]


@pytest.mark.parametrize("name", ["Guardrails.cedar", "more.CEDAR"])
def test_a_file_whose_name_is_written_otherwise_is_an_error_and_not_left_out(tmp_path: Path, name: str) -> None:
    policy_of(tmp_path, {"base.cedar": BASE, name: FORBID.format(id="abc")})
    assert found(tmp_path) == [(f"policies/{name}", 1, "file-name")]
    assert load(tmp_path).of("orders-read") is None


def test_a_slice_whose_name_is_written_otherwise_stops_the_entitlement_it_is_meant_for(tmp_path: Path) -> None:
    policy_of(tmp_path, {"base.cedar": BASE, "entitlements/Orders-Read.cedar": FORBID.format(id="abc")})
    assert load(tmp_path).of("orders-read") is None


def test_policies_in_a_folder_that_nobody_reads_are_an_error(tmp_path: Path) -> None:
    policy_of(tmp_path, {"base.cedar": BASE, "guardrails/more.cedar": FORBID.format(id="abc")})
    assert found(tmp_path) == [("policies/guardrails", 1, "unknown-folder")]
    assert load(tmp_path).of("orders-read") is None


def test_a_link_out_of_the_directory_a_pipe_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / "policies"
    write(directory, base=BASE)
    outside = tmp_path / "outside.cedar"
    outside.write_text(FORBID.format(id="abc"))
    (directory / "link.cedar").symlink_to(outside)
    os.mkfifo(directory / "pipe.cedar")
    (directory / "huge.cedar").write_text("// x\n" * 100_000)
    (directory / "gone.cedar").symlink_to(directory / "nowhere")
    (directory / "binary.cedar").write_bytes(b"\xff\xfe")
    assert {(file, rule) for file, _, rule in found(directory)} == {
        ("policies/link.cedar", "outside"),
        ("policies/pipe.cedar", "not-a-file"),
        ("policies/huge.cedar", "too-large"),
        ("policies/gone.cedar", "unreadable"),
        ("policies/binary.cedar", "not-utf-8"),
    }
    assert load(directory).of("orders-read") is None


def test_a_folder_of_slices_that_leads_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    policy_of(tmp_path / "elsewhere", {"orders-read.cedar": FORBID.format(id="abc")})
    write(tmp_path / "policies", base=BASE)
    (tmp_path / "policies" / "entitlements").symlink_to(tmp_path / "elsewhere")
    assert [rule for _, _, rule in found(tmp_path / "policies")] == ["outside"]
    assert load(tmp_path / "policies").of("orders-read") is None


@pytest.mark.parametrize(
    "condition",
    [
        "(" * 5_000 + "true" + ")" * 5_000,
        "context.hour + " * 10_000 + "1 > 0",
        "context" + ".a" * 10_000,
        "[" * 3_000 + "1" + "]" * 3_000 + " == [1]",
        "if true then true else " * 5_000 + "true",
        "!" * 10_000 + "true",
    ],
    ids=["brackets", "sum", "attributes", "sets", "branches", "negations"],
)
def test_a_policy_that_would_kill_the_parser_is_refused_before(tmp_path: Path, condition: str) -> None:
    write(
        tmp_path,
        base=BASE,
        deep=f'@id("abc") @reason("r") forbid (principal, action, resource) when {{ {condition} }};',
    )
    assert [rule for _, _, rule in found(tmp_path)] == ["too-deep"]


def test_files_that_change_hold_within_a_second_and_those_that_break_grant_nothing(tmp_path: Path) -> None:
    now = [0.0]
    write(tmp_path, base=BASE)
    policy = CedarPolicy(tmp_path, monotonic=lambda: now[0])
    assert policy.policies.of("orders-read") is not None
    write(tmp_path, entitlements__orders_read="")  # the folder appears
    shutil.rmtree(tmp_path / "entitlements")
    write(tmp_path, more="forbid (principal")
    assert policy.policies.of("orders-read") is not None
    now[0] += 1
    assert policy.policies.of("orders-read") is None
    (tmp_path / "more.cedar").unlink()
    now[0] += 1
    assert policy.policies.of("orders-read") is not None
    policy_of(tmp_path, {"entitlements/orders-read.cedar": "forbid (principal"})
    now[0] += 1
    assert policy.policies.of("orders-read") is None
    shutil.rmtree(tmp_path)
    now[0] += 1
    assert policy.policies.of("orders-refund") is None
    assert policy.broken is not None
    write(tmp_path, base=BASE)
    now[0] += 1
    assert policy.policies.of("orders-refund") is not None


def test_lint_finds_slices_of_entitlements_that_do_not_exist_and_a_schema_of_another_release(tmp_path: Path) -> None:
    policy_of(tmp_path, {"base.cedar": BASE, "entitlements/no-such.cedar": "", schema.FILE: "entity Old;\n"})
    _, problems = lint(tmp_path, NAMES)
    assert [(problem.file, problem.rule, problem.severity) for problem in problems] == [
        ("policies/entitlements/no-such.cedar", "unknown-entitlement", Severity.ERROR),
        ("policies/shorthold.cedarschema", "stale-schema", Severity.WARNING),
    ]
    assert load(tmp_path).of("orders-read") is not None  # what is granted never depends on that copy


def test_lint_says_where_there_are_no_policies_at_all(tmp_path: Path) -> None:
    _, problems = lint(tmp_path / "policies", NAMES)
    assert [problem.rule for problem in problems] == ["no-policies"]
    assert "shorthold policy init" in problems[0].message
