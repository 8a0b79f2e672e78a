"""The JSON Schema of an entitlement, made from the model and from every engine there is: for editors and reviews."""

import json
from collections.abc import Iterator, Mapping
from typing import cast

from controlplane.model.canonical import JsonValue
from controlplane.model.entitlement import Entitlement, Scope
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
        narrows = {field for model in _models(engine) for field in model.narrows}
        for shape in cast("list[dict[str, dict[str, JsonValue]]]", one.get("anyOf", [one])):
            shape["properties"]["engine"] = {"const": word, "description": "What kind of target it is."}
            for field in narrows & shape["properties"].keys():
                shape["properties"][field] = _narrowable(shape["properties"][field])
        definitions[f"scope-{word}"] = one
        scopes.append({"$ref": f"#/$defs/scope-{word}"})
    definitions["Scope"] = {"description": "What exactly one credential can do.", "anyOf": scopes}
    whole["description"] = "An entitlement: what may be granted, to whom, how narrowly, how long, and who must agree."
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **cast("dict[str, JsonValue]", _tidy(whole))}


def text(engines: Mapping[str, Engine]) -> str:
    """The schema as it stands in a file."""
    return json.dumps(schema(engines), indent=2, ensure_ascii=False) + "\n"


def _models(engine: Engine) -> Iterator[type[Scope]]:
    yield engine.scope_model
    yield from engine.scope_model.__subclasses__()  # a dialect's own


def _narrowable(part: JsonValue) -> JsonValue:
    """The same field, with texts that a parameter may stand in."""
    match part:
        case {"type": "string"}:
            said = {key: value for key, value in part.items() if key == "description"}
            return {"anyOf": [part, {"type": "string", "pattern": r"\{[a-z][a-z0-9_]{0,31}\}"}], **said}
        case {"type": "array", "items": items}:
            return {**part, "items": _narrowable(items)}
        case {"patternProperties": dict(values)}:
            return {**part, "patternProperties": {name: _narrowable(value) for name, value in values.items()}}
        case _:
            return part


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
