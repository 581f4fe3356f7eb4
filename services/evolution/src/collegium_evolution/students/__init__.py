"""Students: what tenants agreed to be learned from, and the models that are made of it.

``samples`` reads events, ``sample_store`` and ``student_store`` keep, ``opened`` opens what is sealed, ``making`` makes
heads and ``prompting`` prompts, ``exporting`` writes training data, ``answers`` is asked. One rule: what one tenant
said reaches nobody else, and goes with it.
"""
