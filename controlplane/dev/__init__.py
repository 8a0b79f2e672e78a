"""Real servers on loopback for development, the demo and the tests."""
