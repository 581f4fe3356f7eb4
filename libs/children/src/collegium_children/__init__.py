"""Processes that services start for what holds the interpreter, may hang or is not to be trusted with much.

``child`` is the parent's side, ``frames`` what both say. One rule: of the environment a child gets what Python needs,
and nothing else.
"""
