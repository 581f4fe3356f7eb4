"""Prompt students: an instruction and examples that make a cheaper model answer as a better one did.

``prompt`` is one as it travels, ``distilling`` makes one of verified answers, ``asking`` puts it before a client's
messages. Pure. One rule: it is the same for every question, so that a provider's cache of prefixes holds it.
"""
