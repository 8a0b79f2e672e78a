"""RabbitMQ users on a real broker: they reach the queues and exchanges of their scope, and end with their grant."""

import subprocess
from collections.abc import Callable, Generator
from datetime import timedelta
from typing import Any

import pytest

from controlplane.dev.process import until
from controlplane.testing import rabbitmq
from controlplane.testing.real import RealPlane

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

SCOPE: dict[str, Any] = {
    "name": "invoices",
    "engine": "rabbitmq",
    "vhost": "billing",
    "permissions": ["read on queue invoices.new", "write on exchange receipts"],
}
PATIENCE = timedelta(seconds=60)


@pytest.fixture(scope="module")
def broker(
    tmp_path_factory: pytest.TempPathFactory, needed: Callable[[str, object], None]
) -> Generator[rabbitmq.RabbitMQ]:
    needed(rabbitmq.PACKAGE, rabbitmq.program())
    needed(rabbitmq.TOOLS, rabbitmq.tools())
    server = rabbitmq.RabbitMQ(directory=tmp_path_factory.mktemp("rabbitmq"))
    try:
        server.start()
        server.make("queues", "billing", "invoices.new", "invoices-new", "invoicesxnew")
        server.make("exchanges", "billing", "receipts", "receipts-of-others")
        server.make("queues", "other", "invoices.new")
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def plane(planes: Callable[..., RealPlane], broker: rabbitmq.RabbitMQ) -> RealPlane:
    plane = planes("rme", "rabbitmq")
    plane.root.write(f"{plane.mount('rabbitmq')}/config/connection", broker.connection)
    plane.entitle({"entitlement": "invoices", "scopes": [SCOPE]})
    return plane


def test_a_user_reaches_the_queue_and_the_exchange_of_its_scope_and_no_other(
    plane: RealPlane, broker: rabbitmq.RabbitMQ
) -> None:
    granted = plane.grant("invoices")
    fields = plane.unwrap(granted)
    assert fields["username"] == granted.leases[0].principal
    broker.api("POST", "exchanges/billing/amq.default/publish", {
        "properties": {}, "routing_key": "invoices.new", "payload": "one", "payload_encoding": "string",
    })  # fmt: skip
    assert broker.run("amqp-get", fields, "-q", "invoices.new").stdout == "one"
    assert broker.run("amqp-publish", fields, "-e", "receipts", "-b", "paid").returncode == 0
    for queue in ("invoices-new", "invoicesxnew", "amq.gen-x"):
        assert "403" in broker.run("amqp-get", fields, "-q", queue).stderr, queue
    for exchange in ("receipts-of-others", ""):
        done = broker.run("amqp-publish", fields, "-e", exchange, "-r", "invoices.new", "-b", "x")
        assert done.returncode != 0, exchange
    assert broker.run("amqp-declare-queue", fields, "-q", "mine").returncode != 0
    assert broker.run("amqp-delete-queue", fields, "-q", "invoices.new").returncode != 0
    assert broker.run("amqp-get", {**fields, "vhost": "other"}, "-q", "invoices.new").returncode != 0
    plane.finished(granted)


def test_when_the_grant_ends_the_user_and_its_open_connection_are_gone_and_the_receipt_says_who_was_not_asked(
    plane: RealPlane, broker: rabbitmq.RabbitMQ
) -> None:
    """P3, C9, C10."""
    granted = plane.grant("invoices")
    fields = plane.unwrap(granted)
    user = fields["username"]
    command = broker.command("amqp-consume", fields, "-q", "invoices.new", "cat")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as consumer:
        try:
            assert until(lambda: broker.running(user) == 1, PATIENCE)
            assert user in broker.users()
            revoked = plane.finished(granted)
            assert user not in broker.users()
            assert until(lambda: broker.running(user) == 0, PATIENCE)
        finally:
            consumer.kill()
    assert broker.run("amqp-get", fields, "-q", "invoices.new").returncode != 0
    assert revoked.receipt is not None
    (end,) = revoked.receipt.ended
    assert (end.verified, end.principal) == (False, user)
    assert "administrator" in end.evidence


def test_a_broker_that_is_away_keeps_the_grant_from_being_called_revoked(
    plane: RealPlane, broker: rabbitmq.RabbitMQ
) -> None:
    """P3: what Vault could not take back is not gone."""
    granted = plane.grant("invoices")
    user = plane.unwrap(granted)["username"]
    plane.root.write(f"{plane.mount('rabbitmq')}/config/connection", {
        **broker.connection, "connection_uri": "http://127.0.0.1:9", "verify_connection": False,
    })  # fmt: skip
    plane.end(granted)
    assert until(lambda: plane.stands(granted).attempts > 0, PATIENCE)
    assert plane.stands(granted).state == "revoking"
    assert user in broker.users()
    plane.root.write(f"{plane.mount('rabbitmq')}/config/connection", broker.connection)
    plane.ended(granted)
    assert user not in broker.users()


def test_it_ends_with_its_task_token_because_users_of_rabbitmq_have_no_clock(
    plane: RealPlane, broker: rabbitmq.RabbitMQ
) -> None:
    """P2: whatever the mount's lease is."""
    granted = plane.grant("invoices")
    user = plane.unwrap(granted)["username"]
    accessor = granted.grant.accessor
    assert accessor is not None
    plane.root.write("auth/token/renew-accessor", {"accessor": accessor, "increment": "1s"})  # its time is over
    assert until(lambda: user not in broker.users(), PATIENCE)
    plane.finished(granted)
