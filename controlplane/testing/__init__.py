"""Fakes that are products: each is proved against the real thing by a contract suite."""
