"""The ``collegium`` command: runs the platform, and talks to it.

A verb's module is imported when the verb is used, so that help and small verbs start at once.
"""
