"""Verbs on Vault's configuration, one file each."""
