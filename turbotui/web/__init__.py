"""The console in a browser, on this machine's loopback only."""
