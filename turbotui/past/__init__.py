"""The moments that are over, for the console: `cursor` says which one is looked at, `seen` is what this
console saw itself, `archive` what was recorded before, asked in a thread, `timeline` joins both into the
graph's columns and marks, and `axis` writes the times beneath them."""
