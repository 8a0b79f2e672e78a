"""The Cedar decision point: what policies see, how they are read, and how they are asked."""
