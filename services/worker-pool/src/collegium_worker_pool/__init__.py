"""The worker pool: runs attempts. It calls models, streams tokens, records usage, and settles plans of one attempt.

It does not decide what is good enough, and knows no tenant's budget.
"""
