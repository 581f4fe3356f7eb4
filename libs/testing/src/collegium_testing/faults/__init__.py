"""Faults made on purpose, and the checker that runs after each of them.

Here: a TCP proxy that spoils a connection (proxy.py), a cluster of three brokers (cluster.py), single service processes
(services.py), small disks (disks.py), the load that runs meanwhile (load.py), the facts that a run leaves (facts.py),
what must be true of them (checker.py), the results file (results.py) and the long soak (soak.py). Not here: which
faults there are and what is expected of each; that table stands in tests/chaos.

The one rule: a fault is made from outside, on real processes, and from a seed.
"""
