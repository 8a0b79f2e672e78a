"""The verbs of a responder, one file each."""
