"""One room for each kind of rule; each is given a rule and units with their readings, and returns what it found."""
