"""The audit log: a chain of events committed with the change they tell of."""
