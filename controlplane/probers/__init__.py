"""Ask a target whether a credential still works, one file per kind of target."""
