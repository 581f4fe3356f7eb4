"""Trained heads: a classifier of short texts that answers where a model would be called. Pure.

A text is seen three ways: its vector by the embedder, its words, and its groups of letters, the latter two hashed, so
that no word of anybody stands in a head. A multinomial logistic regression on all of them names the label; how strong
the strongest label is says whether the text is of the head's kind at all. ``features`` turns texts into numbers,
``head`` is what travels, ``applying`` answers, ``fitting`` learns. One rule: a head is raw numbers with their digest,
checked before they are used, and nothing of it is ever run.
"""
