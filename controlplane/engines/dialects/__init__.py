"""Dialects: what privileges mean in one kind of database, as text that is parsed, checked and compiled."""
