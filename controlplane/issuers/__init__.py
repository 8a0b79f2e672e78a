"""Who may vouch for a workload, one file per kind of issuer."""
