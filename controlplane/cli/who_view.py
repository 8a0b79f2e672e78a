"""Who could have an entitlement, as lines for a person."""

from collections.abc import Mapping

from controlplane.model.canonical import JsonValue


def flat(told: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A line for each question, and for each workload and each thing that it opens."""
    lines: dict[str, JsonValue] = {name: told[name] for name in ("entitlement", "purpose", "owner", "risk")}
    lines["for"] = ", ".join(map(str, _list(told["intents"])))
    lines |= _numbered("opens", [str(line) for line in _list(told["opens"])])
    lines |= _numbered("who", [_says(entry) for entry in _list(told["who"])])
    lines |= {"when": _says(told["when"]), "where": _says(told["where"]), "how often": _says(told["budgets"])}
    ttl = told["ttl"] if isinstance(told["ttl"], Mapping) else {}
    lines["how long"] = f"{ttl.get('default')}, at most {ttl.get('max')}"
    lines["approval"] = _says(told["approval"]) if told["approval"] else "nobody has to agree"
    return lines


def _numbered(name: str, texts: list[str]) -> dict[str, JsonValue]:
    return {name if number == 1 else f"{name} ({number})": text for number, text in enumerate(texts, 1)}


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _says(value: JsonValue) -> str:
    return str(value["says"]) if isinstance(value, Mapping) else ""
