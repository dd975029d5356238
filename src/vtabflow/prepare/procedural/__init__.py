"""Source `procedural`: stand-ins drawn from a seed, one file for each kind of picture."""
