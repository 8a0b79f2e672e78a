"""The exit statuses that a script can go by, as operating.md has them; an error has its own (`model/errors.py`)."""

from typing import Final

DENIED: Final = 3
"""It was refused."""
PENDING: Final = 4
"""It waits for another person."""
RESIDUAL: Final = 5
"""Something is not verified gone: it may be alive, or nobody can say that it is not."""
