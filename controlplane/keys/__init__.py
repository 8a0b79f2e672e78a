"""Signing keys on disk, and what the world may know of them."""
