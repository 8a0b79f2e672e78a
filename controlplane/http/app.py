"""The HTTP application: routes, problems and the worker's life."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from controlplane import __version__
from controlplane.http import (
    approvals,
    audit,
    description,
    entitlements,
    evidence,
    freezes,
    grants,
    health,
    incidents,
    metrics,
    needs,
    problems,
    renewals,
    reviews,
    signals,
    tasks,
    threads,
)
from controlplane.http.envelope import Envelope
from controlplane.http.intake import Intake
from controlplane.http.rates import Rates, rates
from controlplane.http.waiting import Waiters
from controlplane.wiring.plane import ControlPlane
from controlplane.world import RandomIds


def create_app(plane: ControlPlane, *, worker: bool = True, limits: Rates | None = None) -> FastAPI:
    """The application over `plane`; with `worker` its worker and its outbox live as long as it does.

    `limits` are how often one workload may ask; without them, as the settings have it by default.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncGenerator[None]:
        del app
        if worker:
            plane.worker.start()
            plane.outbox.start()
        yield
        if worker:
            await run_in_threadpool(plane.worker.stop)
            await run_in_threadpool(plane.outbox.stop)
        await run_in_threadpool(plane.close)

    app = FastAPI(
        title="Shorthold",
        version=__version__,
        summary="Access that is let to one task, and provably gone afterwards.",
        lifespan=life,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # `request_grant`, and not the path and method again
        redirect_slashes=False,  # it would send a bearer token wherever the Host header says
        # By default it tells texts of exceptions to whatever global provider some library has set up.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    app.state.plane = plane
    app.state.rates = limits or rates()
    app.state.waiters = Waiters()
    app.state.last_look = health.LastLook()
    threads.reserve(app)
    for part in (
        grants,
        renewals,
        tasks,
        approvals,
        reviews,
        entitlements,
        needs,
        freezes,
        signals,
        incidents,
        evidence,
        audit,
        health,
        metrics,
    ):
        app.include_router(part.router)
    problems.install(app)
    description.install(app)
    app.add_middleware(Intake)
    app.add_middleware(Envelope, new_id=RandomIds().new)
    app.add_middleware(metrics.Measured, metrics=plane.metrics)
    return app
