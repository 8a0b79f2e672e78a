"""What agents import: `import controlplane.sdk as shorthold`, then `with shorthold.grant(…) as access:`.

It depends on the nouns only, and imports no more than a grant needs.
"""

from controlplane.model.errors import ConfigurationError, ControlPlaneError
from controlplane.sdk.access import Access, Credential
from controlplane.sdk.identity import (
    Identity,
    from_command,
    from_file,
    from_github,
    from_kubernetes,
    from_spiffe,
    from_text,
)
from controlplane.sdk.lending import Lending, Task, grant, resume, task
from controlplane.sdk.logs import LogRedactor
from controlplane.sdk.redaction import Redactor
from controlplane.sdk.refusals import (
    AnsweredError,
    ContextChangedError,
    DeniedError,
    EndedError,
    ForeignAnswerError,
    FrozenError,
    OverBudgetError,
    OverError,
    UnreachableError,
    WaitingError,
)
from controlplane.sdk.surroundings import Surroundings, VaultAt, surroundings
from controlplane.sdk.tools import ToolFailedError, tool
from controlplane.sdk.using import postgresql, sqlalchemy, ssh_agent, ssh_files, tls

__all__ = [
    "Access",
    "AnsweredError",
    "ConfigurationError",
    "ContextChangedError",
    "ControlPlaneError",
    "Credential",
    "DeniedError",
    "EndedError",
    "ForeignAnswerError",
    "FrozenError",
    "Identity",
    "Lending",
    "LogRedactor",
    "OverBudgetError",
    "OverError",
    "Redactor",
    "Surroundings",
    "Task",
    "ToolFailedError",
    "UnreachableError",
    "VaultAt",
    "WaitingError",
    "from_command",
    "from_file",
    "from_github",
    "from_kubernetes",
    "from_spiffe",
    "from_text",
    "grant",
    "postgresql",
    "resume",
    "sqlalchemy",
    "ssh_agent",
    "ssh_files",
    "surroundings",
    "task",
    "tls",
    "tool",
]
