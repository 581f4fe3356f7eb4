"""Ranks: whether a model has earned another rank, and what its numbers were. Pure.

``pairs`` is what two models are compared by: the same work answered by both. ``superiority`` and ``bounds`` turn pairs
into evidence that may be looked at after every one of them, ``falling`` into evidence that a model has become worse,
``tenants`` keeps one tenant from deciding for the others, ``together`` allows for many comparisons at once,
``decisions`` makes the decision and ``simulation`` measures how often it is wrong. ``decay`` and ``drift`` are the
arithmetic of scoreboards. One rule: evidence is a number that no model of equal worth exceeds but rarely, however often
one looks, and a decision holds every number that it was made of.
"""
