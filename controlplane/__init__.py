"""Shorthold: access that is let to one task, and provably gone afterwards."""

__version__ = "0.1.0"
