"""Every version of the schema, in order; `env.py` is what alembic runs."""
