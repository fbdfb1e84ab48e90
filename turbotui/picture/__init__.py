"""Pictures in a terminal: what they are, how they are read from files, and how cells show them."""
