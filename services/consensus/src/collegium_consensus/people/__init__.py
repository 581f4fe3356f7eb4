"""People: which answers wait for them, and what follows from what they say.

``asking.py`` decides which questions a verdict has to pass, ``outcomes.py`` what follows from the answers, and
``pausing.py`` and ``inputs.py`` carry it out. One rule: nothing about a waiting task is
kept but its own events.
"""
