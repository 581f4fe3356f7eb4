"""Domains that are discovered: what a tenant asks about, where it names no domain itself.

Pure: ``discovering`` (what was found → ids, rows and a map). ``child`` finds clusters in a process of its own,
``domain_store`` is the SQL, ``rounds`` the step of a round, ``answers`` who is asked. One rule: a tenant's domains are
found in its own questions, and their words are sealed with its key.
"""
