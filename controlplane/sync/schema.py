"""The JSON Schema of an entitlement, made from the model and from every engine there is: for editors and reviews."""

import json
from collections.abc import Mapping
from typing import cast

from controlplane.model.canonical import JsonValue
from controlplane.model.entitlement import Entitlement
from controlplane.ports import Engine

FILE = "entitlement.schema.json"


def schema(engines: Mapping[str, Engine]) -> dict[str, JsonValue]:
    """JSON Schema 2020-12; a scope is any one engine's scope."""
    whole = cast("dict[str, JsonValue]", Entitlement.model_json_schema())
    definitions = cast("dict[str, JsonValue]", whole["$defs"])
    scopes: list[JsonValue] = []
    for word, engine in sorted(engines.items()):
        one = cast("dict[str, JsonValue]", engine.scope_model.model_json_schema())
        definitions |= cast("dict[str, JsonValue]", one.pop("$defs", {}))
        for shape in cast("list[dict[str, dict[str, JsonValue]]]", one.get("anyOf", [one])):
            shape["properties"]["engine"] = {"const": word, "description": "What kind of target it is."}
        definitions[f"scope-{word}"] = one
        scopes.append({"$ref": f"#/$defs/scope-{word}"})
    definitions["Scope"] = {"description": "What exactly one credential can do.", "anyOf": scopes}
    whole["description"] = "An entitlement: what may be granted, to whom, how narrowly, how long, and who must agree."
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **cast("dict[str, JsonValue]", _tidy(whole))}


def text(engines: Mapping[str, Engine]) -> str:
    """The schema as it stands in a file."""
    return json.dumps(schema(engines), indent=2, ensure_ascii=False) + "\n"


def _tidy(part: JsonValue) -> JsonValue:
    """Without titles, which repeat the keys, and without null: a key is left out, it is never empty."""
    match part:
        case dict():
            kept = {
                key: _tidy(value)
                for key, value in part.items()
                if not (key == "title" and isinstance(value, str)) and not (key == "default" and value is None)
            }
            match kept.pop("anyOf", None):
                case [dict(only), {"type": "null"}]:
                    return only | kept
                case None:
                    return kept
                case several:
                    return kept | {"anyOf": several}
        case list():
            return [_tidy(value) for value in part]
        case _:
            return part
