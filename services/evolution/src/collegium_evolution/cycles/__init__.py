"""Rounds of learning: gaps → students → shadow → promotion → policy, every so many settled tasks or on demand.

Pure: ``planning`` (when a round is due, and which step is next). ``cycle_store`` is its SQL, ``running`` does the
steps. What a step does is given to it as a function; a step that nobody does says so. One rule: a step that was done is
never done again, and one that was not is begun anew, so steps change nothing by being begun twice.
"""
