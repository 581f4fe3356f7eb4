"""Which endpoint of a model is asked, how each is doing, and when it is left alone."""
