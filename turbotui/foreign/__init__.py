"""Logs of other programs: bytes become lines, lines become what they tell of memory. Knows no Textual."""
