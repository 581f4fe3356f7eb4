"""Knowledge gaps: where answers are not good enough, whoever gives them.

Pure: ``finding`` (what is known of a domain → whether it is a gap, and how bad), ``clusters`` (what is known of
discovered domains). ``gap_store`` is its SQL, ``rounds`` the step of a cycle. One rule: a domain is a gap when even the
kindest reading of what is known lies below the target.
"""
