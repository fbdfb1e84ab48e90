"""What an old log tells of memory: a timeline of facts, and the verdicts on it. Knows no Textual."""
