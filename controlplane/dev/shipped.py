"""Where the files that travel with the package stand: `roles/` and `vault-config/`, in a clone or in a wheel."""

import hashlib
from pathlib import Path

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
