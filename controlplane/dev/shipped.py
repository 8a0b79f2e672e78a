"""Where the files that travel with the package stand, in a clone or in a wheel: `roles/`, `examples/` and others."""

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import controlplane


def code_digest(package: Path = Path(controlplane.__file__).parent) -> str:
    """16 hex digits that tell the code in `package` from every other: its version does not change while one works."""
    digest = hashlib.sha256()
    for source in sorted(package.rglob("*.py")):
        digest.update(f"{source.relative_to(package)}\0".encode(errors="surrogateescape"))
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()[:16]


def shipped(name: str) -> Path:
    """The directory `name` as it came with this installation."""
    package = Path(controlplane.__file__).parent
    inside = package / "shipped" / name
    return inside if inside.exists() else package.parent / name


def example(name: str) -> Any:  # noqa: ANN401 # a program, whatever it has
    """The program `name` of `examples/`, as a module. Raises: LookupError: there is none."""
    found = importlib.util.spec_from_file_location(f"examples.{name}", shipped("examples") / f"{name}.py")
    if found is None or found.loader is None:
        raise LookupError(f"examples/ has no {name}")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
