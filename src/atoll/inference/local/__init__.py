"""Models that run on this device, each in a child process of its own."""
