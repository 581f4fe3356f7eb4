"""The roster of models: what the configuration names, what is changed while the platform runs, and what it costs."""
