"""What alembic runs: the versions, inside the transaction that the caller has begun."""

from alembic import context

from controlplane.stores.schema import metadata

# The caller's connection carries the lock under which nobody else upgrades, and commits all versions or none.
context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
