"""Which model a question goes to: what is seen of it, what is expected of each model, and who is chosen.

``features`` says what is seen of a question, ``policy`` what is learned, ``predicting`` what it expects of each model,
``choosing`` who answers and why. Fitting: ``lessons`` are outcomes of before, ``fitting`` makes a policy of them,
``certifying`` proves how often the cheaper one may answer, ``comparing`` says what a policy would have done on what
others decided. One rule: what is compared is the gain of the dearer model, not how hard a question is; a question that
nobody can answer is not worth the dearer one's price.
"""
