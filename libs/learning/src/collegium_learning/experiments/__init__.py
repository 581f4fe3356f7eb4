"""Experiments: what the outcomes of two arms prove, at whatever moment one looks. Pure.

``effects`` turns outcomes in order of arrival into evidence and an interval for the difference of two arms,
``splitting`` says whether units were split evenly at all, ``looking`` puts them together into what is known of an
experiment, ``simulation`` measures how often that is wrong. One rule: every unit (a conversation, a user) speaks once,
because what it says a second time is no independent word.
"""
