"""Experiments and flags: drafts, what runs, what became of it, and taking back what does harm.

Pure: ``exposures`` (events → what became of an arm's task) and ``checking`` (what may be begun). Around them:
``exposure_store`` and ``experiment_store`` (their SQL), ``publishing`` (what runs, to the bucket that routers follow),
``changing`` (every change, kept with who and why), ``watching`` (guardrails and ends that come by themselves) and
``answers``. What the numbers prove is learning's room ``experiments``. One rule: tables change under one
lock, and what routers follow is made of them alone, so that the bucket never holds what no row explains.
"""
