"""The HTTP routes that are not in `engine.daemon.app`, by noun."""
