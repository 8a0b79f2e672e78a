"""The way to one target: what every prober that logs in does alike."""
