"""Terms that dialects share: the grammar of privileges in SQL, and the names of what logins belong to."""
