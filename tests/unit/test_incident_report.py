"""A report has everything about an incident, is one file that anybody can check, and no byte of it can change (I07)."""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controlplane.cli.incident import incident
from controlplane.incident.bundle import CLAIM, DATA_BEGINS, DATA_ENDS, opened, sealed
from controlplane.incident.check import Verified, check
from controlplane.incident.page import page
from controlplane.keys.files import SigningKey, generate
from controlplane.keys.receipts import public_keys, verified
from controlplane.model.access import Role, Standing
from controlplane.model.canonical import JsonObject
from controlplane.model.errors import InvalidRequestError, NotAllowedError, NotFoundError, StoreUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import State, TaskId
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane

RESPONDER, AUDITOR = Standing(roles=frozenset({Role.RESPONDER})), Standing(roles=frozenset({Role.AUDITOR}))
HOSTILE = '</pre></code><script>alert(1)</script><img src=x onerror=alert(1)>" onclick="x" &lt;b&gt; \u202e --> {{7*7}}'
ALLOWED = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "h2",
        "p",
        "ul",
        "li",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    ),
    *("span", "div", "b", "code", "details", "summary", "pre"),
}


@dataclass(frozen=True)
class Case:
    """An incident that is over, its report and who can check it."""

    plane: FakePlane
    bundle: bytes

    @property
    def keys(self) -> str:
        return json.dumps({"keys": [dict(key) for key in self.plane.receipt_keys]})

    @property
    def verified(self) -> Verified:
        return by(self.keys)

    @property
    def told(self) -> dict[str, Any]:
        found = check(self.bundle, self.verified)
        assert found.problems == ()
        return cast("dict[str, Any]", found.report)


def by(keys: str) -> Verified:
    known = public_keys(keys)
    return lambda signed, claim: verified(signed, known, claim)


def story(reason: str = "the customer asked") -> FakePlane:
    """Two agents' grants, one of them cut with a freeze, which was thawed later."""
    plane = FakePlane(compiled_entitlement(), compiled_entitlement(entitlement="orders-other", owner="b@acme.example"))
    for task in ("T-1", "T-2"):
        plane.ask(task=TaskId(task), reason=reason)
    plane.ask(task=TaskId("T-9"), entitlement="orders-other")
    ann = plane.agent("ann")
    digest = plane.preview(ann, RESPONDER, "task in (T-1, T-2)").digest or ""
    ordered = plane.cut(ann, RESPONDER, digest, incident="INC-7", reason=reason)
    plane.wait(timedelta(seconds=20))
    plane.work()
    plane.freeze(ann, RESPONDER, "subject=nobody", message="See INC-7.", reason="by hand")
    plane.freeze(ann, RESPONDER, "subject=somebody", message="See INC-77.", reason="another")
    assert ordered.cut.freeze is not None
    plane.thaw(plane.agent("bob"), RESPONDER, ordered.cut.freeze, reason="key replaced")
    plane.ask(task=TaskId("T-10"), entitlement="orders-other")
    return plane


def report(plane: FakePlane, name: str = "INC-7") -> bytes:
    return plane.report(plane.agent("bob"), AUDITOR, name).bundle.encode()


@pytest.fixture(scope="module")
def case() -> Case:
    plane = story()
    return Case(plane, report(plane))


def test_i07_c23_it_has_the_grants_the_cut_the_freezes_the_revisions_the_receipts_and_the_timeline(case: Case) -> None:
    told, plane = case.told, case.plane
    cut = plane.store.cuts()[0]
    revoked = plane.store.grants(states=[State.REVOKED])
    assert {grant["id"] for grant in told["grants"]} == {grant.id for grant in revoked}
    assert all(grant["outcome"] == "verified" and grant["receipt"]["signed"] for grant in told["grants"])
    assert [lease["principal"] for grant in told["grants"] for lease in grant["leases"]] == ["v-fake-2", "v-fake-6"]
    assert [(one["id"], one["preview"]["grants"], one["outcomes"]["verified"]) for one in told["cuts"]] == [
        (cut.id, 2, 2)
    ]
    own, by_hand = told["freezes"]
    assert (own["id"], own["thaws"][0]["reason"]) == (cut.freeze, "key replaced")
    assert by_hand["message"] == "See INC-7."  # and not that of INC-77
    (revision,) = told["entitlements"]
    assert (revision["grants"], revision["document"]["entitlement"]) == (2, "orders-read")
    (policies,) = told["policies"]
    assert policies["decisions"] == 2
    reasons = [why for record in told["log"]["records"] for why in record.get("body", {}).get("reasons", ())]
    assert {why["revision"] for why in reasons if why["decision"] == "policy"} == {policies["revision"]}
    kinds = [record["kind"] for record in told["log"]["records"] if "kind" in record]
    assert kinds[0] == Kind.GRANT_ALLOWED
    assert kinds[-1] == Kind.INCIDENT_REPORTED
    for kind in (Kind.SELECTION_PREVIEWED, Kind.CUT_ORDERED, Kind.LEASE_REVOKED, Kind.CUT_ENDED, Kind.SELECTION_THAWED):
        assert kind in kinds
    assert told["made_by"] == {"issuer": "dev", "subject": "bob"}


def test_every_record_is_accounted_for_and_whoever_has_the_log_can_compare_what_is_about_others(case: Case) -> None:
    log = case.told["log"]
    links = {link.seq: link for link in case.plane.store.links()}
    others = [record for record in log["records"] if "fingerprint" in record]
    assert others
    for gap in others:
        between = "".join(f"{links[seq].mac}\n" for seq in range(gap["from"], gap["to"] + 1))
        assert gap["fingerprint"] == hashlib.sha256(between.encode()).hexdigest()
    head = case.plane.store.head()
    assert head is not None
    assert (log["to"], log["mac"]) <= (head.seq, head.mac)
    assert all(record["mac"] == links[record["seq"]].mac for record in log["records"] if "kind" in record)
    assert "T-9" not in case.bundle.decode()  # what is about others is not told


def test_a_report_that_lets_out_the_beginning_of_the_log_starts_where_its_grants_do() -> None:
    plane = FakePlane(compiled_entitlement())
    plane.end(plane.ask(task=TaskId("T-0")).grant.id)
    first = plane.store.head()
    assert first is not None
    plane.ask(task=TaskId("T-1"))
    digest = plane.preview(plane.agent("ann"), RESPONDER, "task=T-1").digest or ""
    plane.cut(plane.agent("ann"), RESPONDER, digest, incident="INC-7", reason="x")
    log = Case(plane, report(plane)).told["log"]
    assert (log["after"], log["after_mac"], log["intact"]) == (first.seq, first.mac, True)


@given(at=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255))
@example(at=-1, flip=10)
@example(at=-6, flip=1)  # the last character of the signature: four bits of it say nothing
def test_a_flipped_byte_anywhere_is_found(case: Case, at: int, flip: int) -> None:
    changed = bytearray(case.bundle)
    changed[at % len(changed) if at >= 0 else at] ^= flip
    assert check(bytes(changed), case.verified).problems


def test_each_byte_of_the_line_that_signs_it_and_of_the_frame_matters(case: Case) -> None:
    data_at, tail_at = case.bundle.index(DATA_BEGINS), case.bundle.rindex(DATA_ENDS)
    places = [*range(data_at, data_at + len(DATA_BEGINS)), *range(tail_at, len(case.bundle))]
    for at in places:
        changed = bytearray(case.bundle)
        changed[at] ^= 1
        assert check(bytes(changed), case.verified).problems, at


@given(cut=st.integers(min_value=1))
def test_a_removed_tail_or_beginning_is_found(case: Case, cut: int) -> None:
    size = cut % len(case.bundle)
    assert check(case.bundle[:size], case.verified).problems
    assert check(case.bundle[-size:] if size else b"", case.verified).problems


def test_whatever_is_put_before_or_behind_it_is_found(case: Case) -> None:
    for content in (case.bundle + b"\n", b"\n" + case.bundle, case.bundle + case.bundle, b""):
        assert check(content, case.verified).problems


def test_a_line_that_was_moved_is_found(case: Case) -> None:
    lines = case.bundle.splitlines(keepends=True)
    lines[40], lines[41] = lines[41], lines[40]
    (problem,) = check(b"".join(lines), case.verified).problems
    assert problem.startswith("the page of it is not what was signed")


def test_the_page_of_another_report_in_its_place_is_found(case: Case) -> None:
    other = opened(report(story("another reason")))
    own = opened(case.bundle)
    assert other is not None
    assert own is not None
    (problem,) = check(case.bundle.replace(own.page, other.page), case.verified).problems
    assert problem.startswith("the page of it is not what was signed")


def test_another_key_is_found(case: Case) -> None:
    (problem, *_) = check(case.bundle, by(generate().public_pem)).problems
    assert problem.startswith("it is not signed by these keys")
    strange = json.dumps({"keys": [generate().jwk]})
    assert check(case.bundle, by(strange)).problems


def test_what_the_key_signed_for_another_purpose_is_no_report(case: Case) -> None:
    own = opened(case.bundle)
    assert own is not None
    receipt = case.told["grants"][0]["receipt"]["signed"]
    (problem, *_) = check(case.bundle.replace(own.signed.encode(), receipt.encode()), case.verified).problems
    assert "no incident report" in problem


def resigned(case: Case, told: JsonObject) -> tuple[str, ...]:
    """What is found in a report that somebody changed who has the key, too."""
    key: SigningKey = generate()
    own = opened(case.bundle)
    assert own is not None
    made = sealed(own.page.decode(), told, incident="INC-7", made_at=case.plane.clock.now(), signer=key)
    keys = json.dumps({"keys": [key.jwk, *(dict(one) for one in case.plane.receipt_keys)]})
    return tuple(
        problem for problem in check(made.encode(), by(keys)).problems if not problem.startswith("it was signed as")
    )


def test_a_record_that_was_taken_out_of_the_middle_or_the_end_or_moved_is_named(case: Case) -> None:
    records = case.told["log"]["records"]
    assert resigned(case, case.told) == ()

    def found(changed: list[Any]) -> tuple[str, ...]:
        return resigned(case, {**case.told, "log": {**case.told["log"], "records": changed}})

    middle, last = records[2], records[-1]
    assert found([*records[:2], *records[3:]]) == (f"record {middle['seq']} of the audit log is missing",)
    assert found(records[:-1]) == (f"record {last['seq']} of the audit log is missing at the end",)
    assert found([records[1], records[0], *records[2:]])
    assert found([*records, records[-1]])
    assert found([*records[:2], {"seq": "2"}, *records[3:]])
    assert resigned(case, {**case.told, "log": {}}) == ("the part of the audit log is not there",)


def test_a_receipt_that_says_something_else_is_named(case: Case) -> None:
    one, two = case.told["grants"]
    swapped = [{**one, "receipt": two["receipt"]}, two]
    assert resigned(case, {**case.told, "grants": swapped}) == (f"the receipt of {one['id']} is that of {two['id']}",)
    forged = {**one, "receipt": {**one["receipt"], "signed": f"{one['receipt']['signed'][:-9]}AAAAAAAAA"}}
    (problem,) = resigned(case, {**case.told, "grants": [forged, two]})
    assert problem.startswith(f"the receipt of {one['id']} proves nothing")


def test_a_log_that_is_not_intact_is_told_in_the_report_and_makes_it_one_that_does_not_verify() -> None:
    plane = story()
    links = plane.store._now.links  # pyright: ignore[reportPrivateUsage] # somebody with the database in his hands
    del links[3]
    bundle = report(plane)
    (problem, *_) = check(bundle, Case(plane, bundle).verified).problems
    assert problem.startswith("the audit log was not intact when the report was made: record 4 is not in its place")
    assert "The audit log was NOT intact" in bundle.decode()


class Tags(HTMLParser):
    """Every tag and attribute that a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def seen(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    tags.close()
    return tags


def test_c05_whatever_others_wrote_is_text_in_the_page_and_nothing_else() -> None:
    bundle = report(story(HOSTILE)).decode()
    found = seen(bundle)
    assert found.tags <= ALLOWED
    assert found.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class", "data-of", "id", "hidden"}
    assert "alert(1)" in bundle  # it is told, escaped
    assert "\u202e" not in bundle
    assert "<script" not in bundle.casefold()
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?\w", bundle.replace(" src=x onerror", ""))
    assert "default-src &#x27;none&#x27;" in bundle or "default-src 'none'" in bundle


@settings(max_examples=25)
@given(text=st.text(max_size=60))
@example(text=HOSTILE)
@example(text="</pre>\n</body>\n</html>\n<!-- signed a.b.c -->\n")
@example(text='<pre id="data" hidden>\n')
def test_no_text_changes_what_the_page_is_made_of(case: Case, text: str) -> None:
    told = case.told
    grants = [{**grant, "reason": text, "subject": text, "parameters": {text: text}} for grant in told["grants"]]
    cuts = [{**told["cuts"][0], "selection": text}]
    changed: dict[str, Any] = {**told, "incident": text, "grants": grants, "cuts": cuts}
    html = page(changed)
    assert seen(html).tags <= ALLOWED
    key = generate()
    made = sealed(html, changed, incident=text, made_at=case.plane.clock.now(), signer=key)
    apart = opened(made.encode())
    assert apart is not None
    assert json.loads(apart.data) == json.loads(json.dumps(changed))


def test_p5_no_secret_is_in_it(case: Case) -> None:
    text = case.bundle.decode()
    assert "v-fake-2" in text
    assert not re.search(r"password-\d|\bhvs\.|\bs\.\w{20}", text)
    for secret in case.plane.assertions:
        assert secret.reveal() not in text


def test_what_is_still_alive_is_told_so_and_one_cut_can_be_reported_by_its_id() -> None:
    plane = story()
    plane.vault.target.down = True
    ann = plane.agent("ann")
    digest = plane.preview(ann, RESPONDER, "task=T-9").digest or ""
    ordered = plane.cut(ann, RESPONDER, digest, incident="INC-7", reason="more", freeze=False)
    plane.wait(timedelta(seconds=20))
    both, one = (Case(plane, report(plane, name)).told for name in ("INC-7", ordered.cut.id))
    assert (len(both["cuts"]), len(both["grants"])) == (2, 3)
    assert (len(one["cuts"]), len(one["grants"])) == (1, 1)
    assert one["outcomes"]["verified"] == 0
    assert one["outcomes"]["residual"] + one["outcomes"]["ending"] == 1
    assert "NOT gone" in report(plane, ordered.cut.id).decode()
    html = page(both)
    parts = ["1 NOT gone", "2 verified gone", "<h2>Not verified gone", "<h2>Cuts", "<h2>Grants that are verified gone"]
    places = [html.index(part) for part in parts]
    assert places == sorted(places)
    alive, gone = (html[place:].partition("</table>")[0] for place in places[2::2])
    assert [alive.count(f"<b>task</b> {task}<") for task in ("T-9", "T-1", "T-2")] == [1, 0, 0]
    assert [gone.count(f"<b>task</b> {task}<") for task in ("T-9", "T-1", "T-2")] == [0, 1, 1]


def test_every_time_that_the_page_shows_says_that_it_is_utc(case: Case) -> None:
    html = page(case.told)
    assert not re.search(r"\d\d:\d\d:\d\d(?! UTC<)", html)
    assert not re.search(r"\d\dT\d\d:\d\d", html)
    assert html.count(" UTC<") > len(case.told["log"]["records"]) / 2


def test_c8_only_responders_and_auditors_get_one_and_only_of_what_was_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = story()
    for roles in ((), (Role.APPROVER, Role.PLATFORM)):
        with pytest.raises(NotAllowedError):
            plane.report(plane.agent("eve"), Standing(roles=frozenset(roles)), "INC-7")
    for name in ("INC-70", "ct_" + "a" * 24, "inc-7"):
        with pytest.raises(NotFoundError):
            plane.report(plane.agent("ann"), RESPONDER, name)
    assert not plane.events(Kind.INCIDENT_REPORTED)
    monkeypatch.setattr("controlplane.incident.report.MOST", 1)
    with pytest.raises(InvalidRequestError, match="2 grants, and a report 1"):
        plane.report(plane.agent("ann"), RESPONDER, "INC-7")
    plane.store.down = "the disk is full"
    with pytest.raises(StoreUnavailableError):
        plane.report(plane.agent("ann"), RESPONDER, "INC-7")


def run(*words: str) -> Result:
    return CliRunner().invoke(incident, ["verify", *words])


def test_the_command_verifies_offline_and_says_in_a_sentence_what_is_wrong(case: Case, tmp_path: Path) -> None:
    file, keys = tmp_path / "INC-7.html", tmp_path / "jwks.json"
    file.write_bytes(case.bundle)
    keys.write_text(case.keys)
    good = run(str(file), "--keys", str(keys))
    assert good.exit_code == 0, good.output
    assert "every byte of it" in good.output
    told = json.loads(run(str(file), "--keys", str(keys), "-o", "json").stdout)
    assert told["incident"] == "INC-7"
    file.write_bytes(case.bundle.replace(b"verified gone", b"verified G0NE", 1))
    bad = run(str(file), "--keys", str(keys))
    assert bad.exit_code == 1
    assert "NOT as it was signed: the page of it" in bad.output
    for content in (b"", b"\xff\x00", b"<!-- signed a.b.c -->\n", DATA_BEGINS + DATA_ENDS + b"<!-- signed a.b.c -->\n"):
        file.write_bytes(content)
        assert run(str(file), "--keys", str(keys)).exit_code == 1
    assert CLAIM == "incident_report"
