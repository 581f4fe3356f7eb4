"""Search: both signals of a question fused, then cut, spread and fitted, each step explained.

Pure rooms: ``fusion`` (two lists → one), ``tuning`` (which weight), ``shaping`` (threshold, diversity, token budget),
``profiles`` (who asks), ``measures`` (nDCG, recall), ``answers`` (a cache). Around them: ``searching`` (one search,
whole) and ``handlers`` (questions in).
"""
