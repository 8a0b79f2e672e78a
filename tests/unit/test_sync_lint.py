"""Lint: each rule finds what it is for where it stands, and only policy can be excepted."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from controlplane.engines import engines, scope_models
from controlplane.model.entitlement import Revocability, Risk
from controlplane.model.errors import ConfigurationError
from controlplane.model.plan import Layout
from controlplane.sync.lint import FIRM, POLICY, Surroundings, lint
from controlplane.sync.load import load
from controlplane.sync.problem import Problem, Severity
from controlplane.sync.tiers import FILE, Tier, Tiers
from controlplane.sync.tiers import load as load_tiers
from controlplane.testing.entitlements import LAYOUT

AROUND = Surroundings(
    tiers=Tiers(),
    layout=LAYOUT,
    revocability={word: engine.revocability for word, engine in engines().items()},
    today=date(2026, 1, 5),
)
ROLES = Path(__file__).parents[2] / "roles"
SOUND = """\
entitlement: orders-read
owner: team-sales@acme.example
purpose: Read orders.
intents: [answer-question]
risk: low
eligibility:
  - {issuer: dev, subject: "agent"}
scopes:
  - {name: orders, engine: database, connection: orders, privileges: [select on table sales.orders]}
ttl: {default: 5m, max: 15m}
"""


def linted(directory: Path, text: str, around: Surroundings = AROUND) -> tuple[Problem, ...]:
    name = text.split("\n", 1)[0].removeprefix("entitlement: ")
    (directory / f"{name}.yaml").write_text(text)
    loaded = load(directory, scope_models())
    assert not loaded.problems
    return lint(loaded.sources[0], around)


def rules(problems: tuple[Problem, ...]) -> list[tuple[str, int, Severity]]:
    return [(problem.rule, problem.line, problem.severity) for problem in problems]


def test_a_sound_entitlement_has_nothing(tmp_path: Path) -> None:
    assert linted(tmp_path, SOUND) == ()


@pytest.mark.parametrize(
    ("edits", "rule", "line"),
    [
        ({"entitlement: orders-read": "entitlement: default"}, "reserved-name", 1),
        ({"entitlement: orders-read": "entitlement: prober-orders"}, "reserved-name", 1),
        ({'"agent"': '"agent*"'}, "star-in-exact-subject", 7),
        ({"max: 15m": "max: 2h"}, "ttl-above-tier", 10),
        ({"risk: low": "risk: medium", "max: 15m": "max: 31m"}, "ttl-above-tier", 10),
        ({"risk: low": "risk: high"}, "approval-below-tier", 5),
        ({"risk: low": "risk: high\napproval: {quorum: 1, from: ['group:x']}", '"agent"': "{glob: 'repo:acme/*'}"},
         "glob-too-wide", 8),
        ({"risk: low": "risk: high\napproval: {quorum: 1, from: ['group:x']}", '"agent"': "{glob: '*:acme/x'}"},
         "glob-too-wide", 8),
        ({"risk: low": "risk: high\napproval: {quorum: 1, from: ['group:x']}",
          "max: 15m}": "max: 15m}\ndelivery: inline"},
         "delivery-above-tier", 12),
        ({"max: 15m}": "max: 15m}\nexceptions:\n  - {rule: made-up, owner: x, reason: y, expires: 2026-02-01}"},
         "unknown-rule", 12),
        ({"max: 15m}": "max: 2h}\nexceptions:\n  - {rule: ttl-above-tier, owner: x, reason: y, expires: 2026-01-04}"},
         "expired-exception", 12),
    ],
)  # fmt: skip
def test_a_rule_finds_what_it_is_for(tmp_path: Path, edits: dict[str, str], rule: str, line: int) -> None:
    text = SOUND
    for old, new in edits.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    assert (rule, line, Severity.ERROR) in rules(linted(tmp_path, text))


def test_an_engine_without_a_mount_is_an_error(tmp_path: Path) -> None:
    around = replace(AROUND, layout=Layout(mounts={"pki": "pki"}))
    assert rules(linted(tmp_path, SOUND, around)) == [("unknown-mount", 9, Severity.ERROR)]


BEATING = replace(AROUND, tiers=Tiers(low=Tier(max_ttl=timedelta(hours=1), quorum=0, heartbeat=timedelta(minutes=1))))


@pytest.mark.parametrize(("beat", "line"), [("", 5), ("heartbeat: 61s\n", 11)])
def test_c16_a_tier_can_need_a_heartbeat_and_how_often(tmp_path: Path, beat: str, line: int) -> None:
    assert rules(linted(tmp_path, SOUND + beat, BEATING)) == [("heartbeat-above-tier", line, Severity.ERROR)]
    assert linted(tmp_path, SOUND + "heartbeat: 60s\n", BEATING) == ()
    assert linted(tmp_path, SOUND) == ()


@pytest.mark.parametrize("risk", list(Risk))
@pytest.mark.parametrize("has", list(Revocability))
def test_c16_a_tier_has_a_weakest_class_of_revocability(tmp_path: Path, risk: Risk, has: Revocability) -> None:
    around = replace(AROUND, revocability={"database": has})
    text = SOUND.replace("risk: low", f"risk: {risk}\napproval: {{quorum: 1, from: ['group:x']}}")
    allowed = {Risk.LOW: set(Revocability), Risk.MEDIUM: {Revocability.PROVABLE, Revocability.RECALLABLE}}
    expected = [] if has in allowed.get(risk, {Revocability.PROVABLE}) else ["revocability-below-tier"]
    assert [problem.rule for problem in linted(tmp_path, text, around)] == expected


@pytest.mark.parametrize(("risk", "ceiling"), [("low", 30), ("medium", 15), ("high", 10)])
def test_c19_break_glass_is_shorter_than_its_tier_and_needs_no_quorum(tmp_path: Path, risk: str, ceiling: int) -> None:
    def longest(minutes: int) -> str:
        text = SOUND.replace("risk: low", f"risk: {risk}").replace("max: 15m", f"max: {minutes}m")
        return text + "break_glass: true\n"

    assert linted(tmp_path, longest(ceiling)) == ()
    problems = [problem.rule for problem in linted(tmp_path, longest(ceiling + 1))]
    assert problems == ["break-glass-above-tier"]
    excepted = "exceptions:\n  - {rule: break-glass-above-tier, owner: x, reason: y, expires: 2026-01-05}\n"
    assert linted(tmp_path, longest(ceiling + 1) + excepted) == ()


@pytest.mark.parametrize("rule", ["delivery-above-tier", "heartbeat-above-tier", "revocability-below-tier"])
def test_c28_what_exceeds_its_tier_needs_an_exception_with_owner_reason_and_date(tmp_path: Path, rule: str) -> None:
    tier = Tier(
        max_ttl=timedelta(hours=1),
        quorum=0,
        inline=rule != "delivery-above-tier",
        heartbeat=timedelta(minutes=1) if rule == "heartbeat-above-tier" else None,
        revocability=Revocability.PROVABLE,
    )
    has = Revocability.EXPIRING if rule == "revocability-below-tier" else Revocability.PROVABLE
    around = replace(AROUND, tiers=Tiers(low=tier), revocability={"database": has})
    text = SOUND + "delivery: inline\n"
    assert [problem.rule for problem in linted(tmp_path, text, around)] == [rule]
    excepted = text + f"exceptions:\n  - {{rule: {rule}, owner: x, reason: y, expires: 2026-01-05}}\n"
    assert linted(tmp_path, excepted, around) == ()
    late = replace(around, today=date(2026, 1, 6))
    assert {problem.rule for problem in linted(tmp_path, excepted, late)} == {rule, "expired-exception"}


def test_at_tier_high_a_glob_may_end_open_but_not_be_open(tmp_path: Path) -> None:
    high = SOUND.replace("risk: low", "risk: high\napproval: {quorum: 1, from: ['group:x']}")
    text = high.replace('"agent"', "{glob: 'system:serviceaccount:agents:refund-*'}")
    assert linted(tmp_path, text) == ()


@pytest.mark.parametrize("expires", ["2026-01-05", "2027-01-06"])
def test_an_exception_lifts_a_rule_of_policy_until_its_last_day(tmp_path: Path, expires: str) -> None:
    excepted = f"max: 2h}}\nexceptions:\n  - {{rule: ttl-above-tier, owner: x, reason: y, expires: {expires}}}"
    assert linted(tmp_path, SOUND.replace("max: 15m}", excepted)) == ()


def test_no_exception_lifts_what_would_not_work(tmp_path: Path) -> None:
    assert not FIRM.keys() & POLICY.keys()
    excepted = "max: 15m}\nexceptions:\n  - {rule: star-in-exact-subject, owner: x, reason: y, expires: 2026-12-31}"
    found = rules(linted(tmp_path, SOUND.replace("max: 15m}", excepted).replace('"agent"', '"agent*"')))
    assert [rule for rule, _, _ in found] == ["star-in-exact-subject", "unknown-rule"]


def test_an_exception_that_nothing_needs_is_a_warning(tmp_path: Path) -> None:
    excepted = "max: 15m}\nexceptions:\n  - {rule: ttl-above-tier, owner: x, reason: y, expires: 2026-12-31}"
    found = linted(tmp_path, SOUND.replace("max: 15m}", excepted))
    assert rules(found) == [("unneeded-exception", 12, Severity.WARNING)]


@pytest.mark.parametrize("network", ["0.0.0.0/0", "'::/0'"])
def test_a_network_that_keeps_nobody_out_is_a_warning(tmp_path: Path, network: str) -> None:
    found = linted(tmp_path, SOUND.replace("max: 15m}", f"max: 15m}}\ncontext: {{networks: [10.0.0.0/8, {network}]}}"))
    assert rules(found) == [("network-of-everybody", 11, Severity.WARNING)]


def test_the_shipped_tiers_are_the_built_in_ones() -> None:
    assert (ROLES / FILE).is_file()
    assert load_tiers(ROLES) == Tiers()


def test_tiers_come_from_their_file_where_there_is_one(tmp_path: Path) -> None:
    assert load_tiers(tmp_path) == Tiers()
    (tmp_path / FILE).write_text('[low]\nmax_ttl = "10m"\nquorum = 2\n')
    assert load_tiers(tmp_path).low == Tier(max_ttl=timedelta(minutes=10), quorum=2)
    assert load_tiers(tmp_path).high == Tiers().high


@pytest.mark.parametrize(
    "text",
    [
        '[low]\nmax_ttl = "9h"\nquorum = 0',
        '[low]\nmax_ttl = "1h"\nquorum = 0\nrevocability = "perhaps"',
        '[low]\nmax_ttl = "1h"\nquorum = 0\ninline = "no"',
        "[low]\nmax_ttl = 600\nquorum = 0",
        "[lowest]\n",
        "[low",
        "\udcff",
    ],
)
def test_tiers_that_cannot_be_understood_stop_everything(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigurationError, match=r"tiers\.toml"):
        load_tiers(tmp_path)


@pytest.mark.parametrize(
    ("approval", "rule"),
    [
        ("{quorum: 1, from: ['subject:dev/agent']}", "approver-is-requester"),
        ("{quorum: 1, from: ['group:x', 'subject:dev/agent']}", "approver-is-requester"),
        ("{quorum: 2, from: ['subject:dev/ann']}", "quorum-out-of-reach"),
        (
            "{quorum: 2, from: ['subject:dev/ann', 'subject:dev/eve'], not_from: ['subject:dev/eve']}",
            "quorum-out-of-reach",
        ),
        ("{quorum: 2, from: ['subject:dev/ann', 'subject:dev/eve']}", None),
        ("{quorum: 5, from: ['group:x']}", None),
        ("{quorum: 1, from: ['subject:other/agent']}", None),
    ],
)
def test_y24_who_must_agree_can_and_is_not_who_asks(tmp_path: Path, approval: str, rule: str | None) -> None:
    problems = linted(tmp_path, SOUND.replace("risk: low", f"risk: high\napproval: {approval}"))
    assert [(problem.rule, problem.severity) for problem in problems] == ([(rule, Severity.ERROR)] if rule else [])


@pytest.mark.parametrize("owner", ["TODO", "n/a", "nobody", " tbd. ", "?"])
def test_c29_a_word_that_stands_for_nobody_is_no_owner(tmp_path: Path, owner: str) -> None:
    found = rules(linted(tmp_path, SOUND.replace("team-sales@acme.example", f"'{owner}'")))
    assert found == [("missing-owner", 2, Severity.ERROR)]
    excepted = f"max: 2h}}\nexceptions:\n  - {{rule: ttl-above-tier, owner: '{owner}', reason: y, expires: 2026-02-01}}"
    assert rules(linted(tmp_path, SOUND.replace("max: 15m}", excepted))) == [("missing-owner", 12, Severity.ERROR)]


def test_c28_an_exception_lasts_a_year_at_most(tmp_path: Path) -> None:
    def excepted(expires: str) -> list[str]:
        entry = f"max: 2h}}\nexceptions:\n  - {{rule: ttl-above-tier, owner: x, reason: y, expires: {expires}}}"
        return [problem.rule for problem in linted(tmp_path, SOUND.replace("max: 15m}", entry))]

    assert excepted("2027-01-06") == []
    assert excepted("2027-01-07") == ["endless-exception"]
    assert excepted("9999-12-31") == ["endless-exception"]


def test_c15_a_target_without_a_clock_is_not_for_tier_high_unless_excepted(tmp_path: Path) -> None:
    redis = SOUND.replace(
        "connection: orders, privileges: [select on table sales.orders]",
        "dialect: redis, connection: carts, privileges: ['read on keys cart:*']",
    )
    high = redis.replace("risk: low", "risk: high\napproval: {quorum: 1, from: ['group:x']}")
    assert linted(tmp_path, redis) == ()
    assert rules(linted(tmp_path, high)) == [("clock-below-tier", 10, Severity.ERROR)]
    excepted = "exceptions:\n  - {rule: clock-below-tier, owner: x, reason: y, expires: 2026-02-01}\n"
    assert linted(tmp_path, high + excepted) == ()
    for word, engine in engines().items():
        has = {"name": "x", **yaml.safe_load(engine.example)}
        scope = engine.scope_model.model_validate(has)
        assert scope.own_clock or word in {"kv", "ldap", "rabbitmq"}, "what no clock ends is said here"


def test_a_static_secret_above_low_risk_has_to_be_rotated_on_return_and_at_high_risk_even_that_needs_a_clock(
    tmp_path: Path,
) -> None:
    around = replace(AROUND, layout=Layout(mounts={"kv": "kv"}))

    def found(risk: str, *, rotate: str) -> set[str]:
        scope = f"  - {{name: orders, engine: kv, path: payments/gateway, fields: [api_key]{rotate}}}"
        text = SOUND.replace(SOUND.splitlines()[8], scope).replace("risk: low", f"risk: {risk}")
        alone = "context: {max_active: {total: 1}}\n" if rotate else ""
        approved = 'approval: {quorum: 1, from: ["group:oncall"]}\n' if risk == "high" else ""
        return {problem.rule for problem in linted(tmp_path, text + alone + approved, around)}

    rotated = ", rotate: {random: {length: 40}, reread: 30s}"
    assert found("low", rotate="") == set()
    assert found("medium", rotate="") == {"revocability-below-tier"}
    assert found("medium", rotate=rotated) == set()
    assert found("high", rotate=rotated) == {"clock-below-tier"}
