-- What Shorthold needs of a MariaDB (10.6 or later), once, as its administrator: mariadb < mariadb.sql
-- Running it again changes nothing. See docs/databases.md.

-- Where the clocks of logins are kept, one event each, and what the prober may call. No table is in it.
CREATE DATABASE IF NOT EXISTS shorthold;

-- Whose eyes the prober looks through. Nobody can log in with it, and it sees no password, not even as a hash.
CREATE USER IF NOT EXISTS 'shorthold_eyes'@'localhost' ACCOUNT LOCK;
GRANT PROCESS ON *.* TO 'shorthold_eyes'@'localhost';
GRANT SELECT (Host, User) ON mysql.global_priv TO 'shorthold_eyes'@'localhost';
GRANT SELECT (db, name, comment, execute_at) ON mysql.event TO 'shorthold_eyes'@'localhost';

-- Of one name: how many accounts and how many sessions have it. Whoever is only trying to log in shows as Connect.
CREATE OR REPLACE DEFINER = 'shorthold_eyes'@'localhost'
PROCEDURE shorthold.present (IN principal VARCHAR(128) CHARACTER SET utf8mb4)
READS SQL DATA SQL SECURITY DEFINER
SELECT (SELECT COUNT(*) FROM mysql.global_priv WHERE User = principal) AS accounts,
       (SELECT COUNT(*) FROM information_schema.PROCESSLIST
         WHERE USER = principal AND COMMAND <> 'Connect') AS sessions;

-- Every account that has a clock: its name, its group, when the clock ends it (UTC), and its sessions.
CREATE OR REPLACE DEFINER = 'shorthold_eyes'@'localhost'
PROCEDURE shorthold.roster ()
READS SQL DATA SQL SECURITY DEFINER
SELECT clock.name, clock.comment, clock.execute_at,
       (SELECT COUNT(*) FROM information_schema.PROCESSLIST AS open
         WHERE open.USER = clock.name AND open.COMMAND <> 'Connect') AS sessions
  FROM mysql.event AS clock
 WHERE clock.db = 'shorthold' AND EXISTS (SELECT 1 FROM mysql.global_priv AS known WHERE known.User = clock.name);

GRANT EXECUTE ON PROCEDURE shorthold.present TO 'shorthold_eyes'@'localhost';
GRANT EXECUTE ON PROCEDURE shorthold.roster TO 'shorthold_eyes'@'localhost';

-- The account by which Vault makes and ends logins; locked until you give it a password:
--   ALTER USER shorthold_manager IDENTIFIED BY '…' ACCOUNT UNLOCK;
-- Whoever has CREATE USER can give any account another password, so it is for Vault alone: rotate it there
-- (database/rotate-root) as soon as the connection stands.
CREATE USER IF NOT EXISTS 'shorthold_manager'@'%' ACCOUNT LOCK;
GRANT CREATE USER, CONNECTION ADMIN, PROCESS ON *.* TO 'shorthold_manager'@'%';
GRANT EVENT ON shorthold.* TO 'shorthold_manager'@'%';
GRANT EXECUTE ON PROCEDURE shorthold.present TO 'shorthold_manager'@'%' WITH GRANT OPTION;
GRANT EXECUTE ON PROCEDURE shorthold.roster TO 'shorthold_manager'@'%' WITH GRANT OPTION;

-- And what your entitlements may give, which is yours to say:
--   GRANT SELECT, UPDATE ON billing.* TO shorthold_manager WITH GRANT OPTION;
-- event_scheduler = ON must stand in the server's configuration: without it no login is made.
