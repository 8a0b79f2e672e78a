"""What the reader of entitlements reads, and what it refuses whatever it means (attacks Y01 to Y06)."""

import contextlib
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.canonical import JsonValue
from controlplane.sync.document import MAX_BYTES, Place, RefusedError, parse


def refused(raw: bytes) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        parse(raw)
    return caught.value


@pytest.mark.parametrize(
    ("raw", "rule", "line", "column"),
    [
        pytest.param(b"a: 1\nb:\n  c: 1\n  c: 2\n", "duplicate-key", 4, 3, id="Y01 duplicate key"),
        pytest.param(b"a: &x 1\nb: *x\n", "anchor", 1, 4, id="Y02 anchor"),
        pytest.param(b"a: *x\n", "alias", 1, 4, id="Y02 alias"),
        pytest.param(b"a:\n  <<: {b: 1}\n", "alias", 2, 3, id="Y02 merge key"),
        pytest.param(b"ttl: 1:30", "ambiguous", 1, 6, id="Y05 base 60"),
        pytest.param(b"ttl: 010", "ambiguous", 1, 6, id="Y05 octal"),
        pytest.param(b"ttl: 1_0", "ambiguous", 1, 6, id="Y05 underscore"),
        pytest.param(b"ttl: 0x10", "ambiguous", 1, 6, id="Y05 hexadecimal"),
        pytest.param(b"ttl: .inf", "ambiguous", 1, 6, id="Y05 infinity"),
        pytest.param(b"ttl: .nan", "ambiguous", 1, 6, id="Y05 not a number"),
        pytest.param(b"ttl: 1.5", "ambiguous", 1, 6, id="Y05 fraction"),
        pytest.param(b"ttl: " + b"9" * 5000, "ambiguous", 1, 6, id="Y05 five thousand digits"),
        pytest.param(b"on: 1", "ambiguous", 1, 1, id="Y05 on as a key"),
        pytest.param(b"a: no", "ambiguous", 1, 4, id="Y05 no"),
        pytest.param(b"a: True", "ambiguous", 1, 4, id="True is not true"),
        pytest.param(b"1: a", "key-not-text", 1, 1, id="a number as a key"),
        pytest.param(b"[a]: b", "key-not-text", 1, 1, id="a list as a key"),
        pytest.param(b"a:", "no-value", 1, 3, id="nothing"),
        pytest.param(b"a: ~", "no-value", 1, 4, id="null"),
        pytest.param(b"a: !!binary aa==", "tag", 1, 4, id="Y05 binary"),
        pytest.param(b"a: !!set {b}", "tag", 1, 4, id="Y05 set"),
        pytest.param(b"a: !!python/object/apply:os.system [id]", "tag", 1, 4, id="Y06 python tag"),
        pytest.param(b"a: !mine b", "tag", 1, 4, id="Y06 custom tag"),
        pytest.param(b"a: !!str b", "tag", 1, 4, id="Y06 harmless tag"),
        pytest.param(b"a: 1\n---\na: 2\n", "several-documents", 2, 1, id="Y06 several documents"),
        pytest.param(b"%YAML 1.1\n---\na: 1\n", "directive", 1, 1, id="directive"),
        pytest.param(b"a:\n\tb: 1", "forbidden-character", 2, 1, id="Y06 tab"),
        pytest.param(b"\xef\xbb\xbfa: 1", "forbidden-character", 1, 1, id="Y06 byte order mark"),
        pytest.param(b'a: "x\\0"', "forbidden-character", 1, 4, id="Y06 NUL escape"),
        pytest.param(b'a: "\\e[31m"', "forbidden-character", 1, 4, id="Y06 ANSI escape"),
        pytest.param(b'a: "\\ud800"', "forbidden-character", 1, 4, id="Y06 lone surrogate"),
        pytest.param(b'a: "\\u202e"', "forbidden-character", 1, 4, id="Y06 bidi escape"),
        pytest.param("a: x\u202ey".encode(), "forbidden-character", 1, 5, id="Y06 bidi"),
        pytest.param("a: x\u200by".encode(), "forbidden-character", 1, 5, id="Y06 zero width"),
        pytest.param(b"a: |\n  b\n", "forbidden-character", 1, 4, id="a value of several lines"),
        pytest.param(b"a: 1\r\nb: 2\r\n", "forbidden-character", 1, 5, id="Y30 CRLF"),
        pytest.param(b"a: 1\nb: \xff", "not-utf-8", 2, 4, id="Y30 not UTF-8"),
        pytest.param("a: 1".encode("utf-16"), "not-utf-8", 1, 1, id="UTF-16"),
        pytest.param(b"a: [1", "not-yaml", 1, 6, id="not closed"),
        pytest.param(b"a: 1\n b: 2", "not-yaml", 2, 3, id="not YAML"),
        pytest.param(b"", "empty", 1, 1, id="empty"),
        pytest.param(b"# only a comment\n", "empty", 1, 1, id="only a comment"),
        pytest.param(b"a: " + b"x" * MAX_BYTES, "too-large", 1, 1, id="Y30 too large"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_where_it_stands(raw: bytes, rule: str, line: int, column: int) -> None:
    error = refused(raw)
    assert (error.rule, error.place) == (rule, Place(line, column))
    assert len(error.message) < 200


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(
            "a: &a [x, x]\n"
            + "".join(f"{c}: &{c} [*{p}, *{p}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
            id="Y03 aliases",
        ),
        pytest.param("[" * 100_000, id="Y03 nesting"),
        pytest.param("{a: " * 10_000, id="Y03 nested mappings"),
        pytest.param("- " * 50_000, id="Y03 nested lists"),
    ],
)
def test_a_bomb_is_refused_before_it_goes_off(bomb: str) -> None:
    begun = time.process_time()
    refused(bomb.encode())
    assert time.process_time() - begun < 1


def test_values_are_text_unless_they_are_plainly_true_false_or_a_number() -> None:
    document = parse(b"a: 5m\nb: true\nc: 12\nd: '12'\ne: [x, 2027-01-31]\nf: >-\n  two\n  lines\nh: caf\xc3\xa9\n")
    assert document.value == {
        "a": "5m",
        "b": True,
        "c": 12,
        "d": "12",
        "e": ["x", "2027-01-31"],
        "f": "two lines",
        "h": "café",
    }


def test_every_part_knows_its_place_and_a_part_that_is_missing_that_of_its_parent() -> None:
    document = parse(b"a:\n  - b: 1\n    c: 2\n")
    assert document.place(("a", 0, "c")) == Place(3, 8)
    assert document.place(("a", 0, "c"), of_key=True) == Place(3, 5)
    assert document.place(("a", 0, "missing")) == Place(2, 5)
    assert document.place(("nowhere",)) == Place(1, 1)


def plain() -> st.SearchStrategy[JsonValue]:
    text = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=8)
    scalar = st.one_of(text, st.booleans(), st.integers(-(10**15), 10**15))
    return st.recursive(
        scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=8
    )


@given(plain())
def test_what_is_read_is_what_was_written(value: JsonValue) -> None:
    written = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=10_000).replace("!!bool ", "")
    assert parse(written.replace("!!int ", "").encode()).value == _quoted(value)


def _quoted(value: JsonValue) -> JsonValue:
    """All scalars are written in quotes, so all come back as text."""
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case list():
            return [_quoted(part) for part in value]
        case dict():
            return {key: _quoted(part) for key, part in value.items()}
        case _:
            return value


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_give_a_document_or_a_refusal_and_never_another_error(raw: bytes) -> None:
    with contextlib.suppress(RefusedError):
        parse(raw)
