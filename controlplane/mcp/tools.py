"""The five tools: find, request, explain, finish, list. They arrange access; only the program that uses it gets it."""

from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from anyio import CancelScope
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitRequest, ElicitRequestURLParams, ElicitResult, InputRequiredResult, ToolAnnotations
from mcp_types.version import is_version_at_least
from pydantic import Field

from controlplane import __version__
from controlplane.mcp.told import (
    Arranged,
    Choice,
    Decided,
    Finished,
    FoundAccess,
    Grants,
    Held,
    command,
    using,
)
from controlplane.model.errors import ControlPlaneError
from controlplane.sdk import calls
from controlplane.sdk.calls import Call, Json
from controlplane.sdk.refusals import worded

Ask = Callable[[Call], Awaitable[Json]]
"""Asks the control plane, as whoever called the tool. Raises: ControlPlaneError."""

INSTRUCTIONS: Final = """\
Access is let to one task at a time. Say what you need with find_access, ask for the least that covers it with
request_access, and run the program that needs it with the command in `use`. You never see a credential, and need none.
A refusal has a code and says what to do: do not try other entitlements instead. When the work is done, finish_task."""

_SECOND_ROUND: Final = "2026-07-28"
"""The first revision of the protocol in which a tool asks a person by its result, and is called again."""
_PAGE: Final = "page"
_LOOK: Final = "25s"
_PROOF: Final = "10s"
_LOOKS: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_ASKS: Final = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
_ENDS: Final = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)

Needs = Annotated[
    list[str],
    Field(min_length=1, description="What was refused or is to be done: `update billing.invoices`, a path, a host."),
]
Name = Annotated[str, Field(description="The entitlement's name, as find_access has it.")]
TaskName = Annotated[str, Field(description="The task that this is for; you choose its id, and finish it by that.")]
Intent = Annotated[str, Field(description="Which of the entitlement's intents.")]
Ttl = Annotated[str | None, Field(description="How long, such as 5m; the entitlement's default otherwise.")]
Parameters = Annotated[dict[str, str] | None, Field(description="What to narrow it to, by the parameter's name.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """The tools of one server. `asks` gives the line of whoever called; `page` is where people agree, with `{id}`."""

    asks: Callable[[Context[Any, Any]], Ask]
    page: str | None = None

    def serve(self, **options: Any) -> "MCPServer[Any]":
        """A server that has them; `options` are the SDK's."""
        server: MCPServer[Any] = MCPServer(
            "shorthold",
            title="Shorthold",
            version=__version__,
            instructions=INSTRUCTIONS,
            log_level="WARNING",
            **options,
        )
        server.add_tool(self.find_access, annotations=_LOOKS)
        server.add_tool(self.request_access, annotations=_ASKS)
        server.add_tool(self.explain_denial, annotations=_LOOKS)
        server.add_tool(self.finish_task, annotations=_ENDS)
        server.add_tool(self.list_grants, annotations=_LOOKS)
        return server

    async def find_access(self, ctx: Context[Any, Any], needs: Needs, intent: str | None = None) -> FoundAccess:
        """Find the least access that covers what you need, what it costs, and how to ask for it."""
        with _refusals():
            answer = await self.asks(ctx)(calls.find(needs, intent=intent))
            return FoundAccess(found=[Choice.of(one) for one in answer["found"]], missing=answer["missing"])

    async def request_access(
        self,
        ctx: Context[Any, Any],
        *,
        entitlement: Name,
        task: TaskName,
        intent: Intent,
        reason: Annotated[
            str | None, Field(description="Why, for the people who agree and read the audit log.")
        ] = None,
        ttl: Ttl = None,
        parameters: Parameters = None,
    ) -> Arranged | InputRequiredResult:
        """Ask for access for a task. The result tells with which command a program gets it, or who has to agree first.

        No credential is made before that program starts, and none is ever in a result.
        """
        with _refusals():
            ask = self.asks(ctx)
            if ctx.request_state is not None:  # the page was shown, and this is the second round
                return await self._looked(ask, ctx.request_state, accepted=_accepted(ctx))
            asked = {"entitlement": entitlement, "task": task, "intent": intent, "reason": reason, "ttl": ttl}
            wish = {**asked, "parameters": parameters}
            if (await ask(calls.explain(wish)))["decision"] == "allow":
                return _allowed(asked, parameters)
            waits: Json | None = None
            with CancelScope(shield=True):  # a client that goes away now must not leave behind what nobody ends
                grant = (await ask(calls.request(wish)))["grant"]  # a denial is raised here, and is in the audit log
                if grant["state"] == "pending":
                    waits = grant
                else:  # it was allowed in between, and has made what nobody here may have
                    await ask(calls.finish(grant["id"], outcome="failed"))
            return await self._shown(ctx, ask, waits) if waits else _allowed(asked, parameters)

    async def explain_denial(
        self,
        ctx: Context[Any, Any],
        *,
        entitlement: Name,
        intent: Intent,
        task: TaskName = "explain",
        ttl: Ttl = None,
        parameters: Parameters = None,
    ) -> Decided:
        """Tell what would be decided on a request now, with every reason; nothing is made."""
        asked = {"entitlement": entitlement, "task": task, "intent": intent, "ttl": ttl, "parameters": parameters}
        with _refusals():
            return Decided.model_validate(await self.asks(ctx)(calls.explain(asked)))

    async def finish_task(
        self, ctx: Context[Any, Any], task: TaskName, outcome: Literal["completed", "failed"] = "completed"
    ) -> Finished:
        """End a task for good, with all access that was granted for it, and wait for the proof that it is gone."""
        with _refusals():
            answer = await self.asks(ctx)(calls.finish_task(task, outcome=outcome, wait=_PROOF))
            ended = answer["task"]
            return Finished(task=ended["task"], why=ended["why"], grants=[Held.of(one) for one in answer["grants"]])

    async def list_grants(
        self,
        ctx: Context[Any, Any],
        task: Annotated[str | None, Field(description="Only those of this task.")] = None,
        state: Annotated[str | None, Field(description="Only those in this state: pending, active, revoked …")] = None,
    ) -> Grants:
        """List your newest grants, their states, and whether what they opened is verified gone."""
        with _refusals():
            answer = await self.asks(ctx)(calls.grants(task=task, state=state))
            return Grants(grants=[Held.of(one) for one in answer["grants"]])

    async def _shown(self, ctx: Context[Any, Any], ask: Ask, grant: Json) -> Arranged | InputRequiredResult:
        """Show the person the page where people agree, where there is one and the client can; else say it in words."""
        id: str = grant["id"]
        if self.page is None or not _opens_pages(ctx):
            return self._pending(grant)
        url = self.page.replace("{id}", id)
        message = f"{grant['entitlement']} for {grant['task']} waits for people to agree: open the page, or pass it on."
        if is_version_at_least(ctx.protocol_version or "", _SECOND_ROUND):
            params = ElicitRequestURLParams(message=message, url=url)
            return InputRequiredResult(input_requests={_PAGE: ElicitRequest(params=params)}, request_state=id)
        try:
            answer = await ctx.elicit_url(message, url, id)
        except MCPError:  # a client that cannot after all, or that is gone
            return self._pending(grant)
        return await self._looked(ask, id, accepted=answer.action == "accept")

    async def _looked(self, ask: Ask, id: str, *, accepted: bool) -> Arranged:
        """How it stands; a person who opened the page gets some seconds to agree. A yes here agrees to nothing."""
        grant = (await ask(calls.show(id, wait=_LOOK if accepted else None)))["grant"]
        if grant["state"] == "pending":
            return self._pending(grant)
        if grant["state"] != "approved":
            return Arranged(state=grant["state"], grant=id, says=f"{id} is {grant['state']}: nothing opens with it.")
        use = using(grant["entitlement"], "--grant", id)
        return Arranged(state="approved", grant=id, use=use, says=f"People have agreed. Run: {command(use)}")

    def _pending(self, grant: Json) -> Arranged:
        id: str = grant["id"]
        page = self.page and self.page.replace("{id}", id)
        where = f"at {page}" if page else f"with `shorthold grant approve {id}`"
        use = using(grant["entitlement"], "--grant", id)
        says = (
            f"Nothing was made: somebody else has to agree first, {where}, before {grant['expires_at']}. "
            f"list_grants tells when it is approved; then run: {command(use)}"
        )
        return Arranged(state="pending", grant=id, page=page, use=use, says=says)


@contextmanager
def _refusals() -> Generator[None]:
    """Ours become the text of a tool's error, which the model reads; whatever else stays in the server's log."""
    try:
        yield
    except ControlPlaneError as error:
        raise ToolError(worded(error)) from None


def _allowed(asked: Mapping[str, str | None], parameters: Mapping[str, str] | None) -> Arranged:
    options = [*asked.items(), *(("parameter", f"{name}={value}") for name, value in (parameters or {}).items())]
    words = [word for name, value in options if name != "entitlement" and value for word in (f"--{name}", value)]
    use = using(str(asked["entitlement"]), *words)
    return Arranged(state="allowed", use=use, says=f"It would be granted now. Run: {command(use)}")


def _opens_pages(ctx: Context[Any, Any]) -> bool:
    able = ctx.client_capabilities
    return able is not None and able.elicitation is not None and able.elicitation.url is not None


def _accepted(ctx: Context[Any, Any]) -> bool:
    answer = (ctx.input_responses or {}).get(_PAGE)
    return isinstance(answer, ElicitResult) and answer.action == "accept"
