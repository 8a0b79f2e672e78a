"""The HTTP door: a route parses, calls one verb, answers."""
