"""Problems for machines: SARIF that code scanning takes, annotations that GitHub shows, JSON that says what to do."""

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from controlplane.sync.problem import Problem, Severity
from controlplane.sync.report import REPORTS
from controlplane.sync.rulebook import RULES

NASTY = "it is 100 % wrong:\n::error::a, b\x1b[31m \u202e"
PROBLEMS = (
    Problem("orders,read:1.yaml", 7, 14, "any-branch", NASTY, Severity.WARNING),
    Problem("policies/guardrails.cedar", 1, 1, "missing-id", "name it"),
    Problem("shop.yaml", 2, 3, "over-scope.all", "name each"),
    Problem("shop.yaml", 4, 3, "over-scope.all", "name each"),
)

SARIF: dict[str, Any] = {
    # What SARIF 2.1.0 requires of the parts that are used (sections 3.13, 3.14, 3.19, 3.27, 3.28, 3.29, 3.30, 3.49),
    # and what GitHub's code scanning needs besides: ruleId, message.text, one location with a startLine.
    "type": "object",
    "required": ["version", "runs", "$schema"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["tool", "results"],
                "additionalProperties": False,
                "properties": {
                    "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                    "tool": {
                        "type": "object",
                        "required": ["driver"],
                        "additionalProperties": False,
                        "properties": {
                            "driver": {
                                "type": "object",
                                "required": ["name", "rules"],
                                "additionalProperties": False,
                                "properties": {
                                    "name": {"type": "string", "minLength": 1},
                                    "semanticVersion": {"type": "string", "pattern": r"^\d+\.\d+\.\d+"},
                                    "rules": {
                                        "type": "array",
                                        "uniqueItems": True,
                                        "items": {
                                            "type": "object",
                                            "required": ["id", "shortDescription", "fullDescription"],
                                            "additionalProperties": False,
                                            "properties": {
                                                "id": {"type": "string"},
                                                "shortDescription": {"$ref": "#/$defs/said"},
                                                "fullDescription": {"$ref": "#/$defs/said"},
                                                "help": {"$ref": "#/$defs/said"},
                                            },
                                        },
                                    },
                                },
                            }
                        },
                    },
                    "results": {"type": "array", "items": {"$ref": "#/$defs/result"}},
                },
            },
        },
    },
    "$defs": {
        "said": {
            "type": "object",
            "required": ["text"],
            "additionalProperties": False,
            "properties": {"text": {"type": "string", "minLength": 1}, "markdown": {"type": "string"}},
        },
        "result": {
            "type": "object",
            "required": ["message", "ruleId", "ruleIndex", "level", "locations"],
            "additionalProperties": False,
            "properties": {
                "ruleId": {"type": "string"},
                "ruleIndex": {"type": "integer", "minimum": 0},
                "level": {"enum": ["none", "note", "warning", "error"]},
                "message": {"$ref": "#/$defs/said"},
                "locations": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["physicalLocation"],
                        "additionalProperties": False,
                        "properties": {
                            "physicalLocation": {
                                "type": "object",
                                "required": ["artifactLocation", "region"],
                                "additionalProperties": False,
                                "properties": {
                                    "artifactLocation": {
                                        "type": "object",
                                        "required": ["uri"],
                                        "additionalProperties": False,
                                        "properties": {"uri": {"type": "string", "pattern": r"^[A-Za-z0-9._~:/%-]+$"}},
                                    },
                                    "region": {
                                        "type": "object",
                                        "required": ["startLine"],
                                        "additionalProperties": False,
                                        "properties": {
                                            "startLine": {"type": "integer", "minimum": 1},
                                            "startColumn": {"type": "integer", "minimum": 1},
                                        },
                                    },
                                },
                            }
                        },
                    },
                },
            },
        },
    },
}


@pytest.mark.parametrize("problems", [(), PROBLEMS], ids=["none", "some"])
def test_c4_sarif_has_the_structure_that_2_1_0_requires(problems: tuple[Problem, ...]) -> None:
    validator: Any = Draft202012Validator(SARIF)
    document = json.loads(REPORTS["sarif"](problems, "some roles"))
    validator.validate(document)
    (run,) = document["runs"]
    rules = run["tool"]["driver"]["rules"]
    for problem, result in zip(problems, run["results"], strict=True):
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == problem.rule
        assert rules[result["ruleIndex"]]["shortDescription"]["text"] == RULES[problem.rule]
        assert result["level"] == problem.severity
    if problems:
        place = run["results"][0]["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "some%20roles/orders%2Cread%3A1.yaml"
        assert place["region"] == {"startLine": 7, "startColumn": 14}


def test_an_annotation_is_one_line_and_nothing_in_it_is_a_command_of_its_own() -> None:
    lines = REPORTS["github"](PROBLEMS, "roles").splitlines()
    assert len(lines) == len(PROBLEMS)
    assert lines[0].startswith(
        "::warning file=roles/orders%2Cread%3A1.yaml,line=7,col=14,title=any-branch::it is 100 %25 wrong:%0A"
    )
    assert all(re.fullmatch(r"::(error|warning) [^:]+::.*", line) for line in lines)


def test_text_moves_no_terminal() -> None:
    told = REPORTS["text"](PROBLEMS, "roles")
    assert "\x1b" not in told
    assert "\u202e" not in told
    assert len(told.splitlines()) == len(PROBLEMS)
    assert told.splitlines()[1] == "policies/guardrails.cedar:1:1: error: name it [missing-id]"


def test_json_says_what_the_rule_is_about_and_where_it_is_explained() -> None:
    told = json.loads(REPORTS["json"](PROBLEMS, "roles"))
    assert told[2] == {
        "file": "shop.yaml",
        "line": 2,
        "column": 3,
        "severity": "error",
        "rule": "over-scope.all",
        "message": "name each",
        "about": RULES["over-scope.all"],
        "help": "docs/lint.md#over-scopeall",
    }
