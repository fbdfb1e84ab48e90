"""The baseline check: facts in, findings out; and what `turbotui doctor` looks at."""
