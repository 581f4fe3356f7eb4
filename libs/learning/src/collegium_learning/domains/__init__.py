"""Domains discovered in a tenant's questions: what is asked alike, found without anybody naming it.

``mapping`` says of which domain a question is (numpy alone); ``fitting`` finds them (scikit-learn, in evolution only),
``keeping`` gives them the ids they had, ``naming`` finds the words that tell them apart. Pure. One rule: a question
that is like none of them is of none.
"""
