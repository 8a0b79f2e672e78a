"""Signed tokens and the keys that verify them: read as strictly as their RFCs allow, fetched and kept."""
