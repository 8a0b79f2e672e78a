"""Vault or OpenBao: the only importer of hvac."""
