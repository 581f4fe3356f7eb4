"""Ranks: which one each model has earned, where, and why.

Pure: ``pairing`` (events → the same work answered by two) and ``weighing`` (pairs and the roster → what is decided).
Around them: ``pair_store`` and ``change_store`` (their SQL), ``changing`` (a decision becomes the roster's) and
``rounds`` (the step of a cycle). What evidence is and when it is enough is learning's room ``ranks``. One rule: no
rank changes without a row that says why, written before the roster is asked.
"""
