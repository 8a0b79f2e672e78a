-- What narrowing logins to rows needs of a PostgreSQL (16 or later), once in each database, as its owner:
--   psql --file postgresql.sql orders
-- Running it again changes nothing. See docs/parameters.md.

CREATE SCHEMA IF NOT EXISTS shorthold;
GRANT USAGE ON SCHEMA shorthold TO PUBLIC;

-- The value that this session's login was made for; NULL for every login that was made for none, so that a policy
-- which compares with it shows no row. It stands in the login's comment, which only who made the login can change.
CREATE OR REPLACE FUNCTION shorthold.row_value(name text) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN (
  SELECT CASE WHEN said IS JSON OBJECT THEN said::jsonb ->> name END
  FROM pg_catalog.shobj_description((SELECT oid FROM pg_catalog.pg_roles WHERE rolname = session_user), 'pg_authid') AS said
);
