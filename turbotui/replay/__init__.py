"""A recording in the console: `clock` is the moment that is shown, `client` feeds the console from the
recording as an engine would, `app` is the console with the keys of a player."""
