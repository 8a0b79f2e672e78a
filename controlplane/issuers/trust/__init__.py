"""What all kinds of issuers share: the table of their claims, the checks in one straight line, and who is chosen."""
