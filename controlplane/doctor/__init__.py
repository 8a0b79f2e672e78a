"""Is everything all right, and what to do if not: the checks behind `shorthold doctor`."""
