"""Answers that are code, run against the tests that came with their task.

``extraction`` finds the code in an answer, ``child`` runs it in an interpreter that has no files and no network,
``pool`` keeps the children, ``testers`` reads ended attempts and stores what became of each, ``members`` lets an answer
count only then. One rule: what the interpreter could not run is no word against an answer.
"""
