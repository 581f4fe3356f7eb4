"""People at the door: whom a task asks, who may answer, and how questions stand.

``terms.py`` says whom, ``pausing.py`` lets a task wait before it begins, ``answering.py`` takes answers, ``book.py`` is
the read model of questions, ``expiring.py`` answers for those who do not, ``door.py`` is the operator's and the staff's
way in. One rule: an answer is what stands in EVENTS; the read model is a way to find what to answer, and its claims
keep two people from doing the same work.
"""
