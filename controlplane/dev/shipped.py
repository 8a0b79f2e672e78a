"""Where the files that travel with the package stand: `roles/` and `vault-config/`, in a clone or in a wheel."""

from pathlib import Path

import controlplane


def shipped(name: str) -> Path:
    """The directory `name` as it came with this installation."""
    package = Path(controlplane.__file__).parent
    inside = package / "shipped" / name
    return inside if inside.exists() else package.parent / name
