"""How bytes reach a receiver that nobody trusts."""
