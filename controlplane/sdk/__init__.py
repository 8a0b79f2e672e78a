"""What agents import; depends on the nouns only."""
