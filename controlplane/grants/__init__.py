"""Verbs on grants, one file each."""
