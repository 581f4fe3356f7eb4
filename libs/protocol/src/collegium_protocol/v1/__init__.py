"""Generated from proto/collegium/v1 by proto/generate.py; not edited by hand."""
