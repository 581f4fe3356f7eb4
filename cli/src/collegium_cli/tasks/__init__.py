"""Work: asked, shown, followed on the broker, scheduled, taken from the dead letters."""
