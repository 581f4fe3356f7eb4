"""``collegium up``: a whole platform on this machine, supervised."""
