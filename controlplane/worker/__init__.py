"""What is due: claims over the store, ticked by APScheduler."""
