"""Billing: what every call cost and every task is charged, the archive of EVENTS, tenants and their keys.

Rooms: ``identity`` (tenants, projects, keys, budgets, published to the gateways), ``holds`` (what may be spent, decided
before it is), ``books`` (events in; rows, sums and double entry), ``reports`` (usage, invoices, alerts), ``audit`` (the
trail). ``handlers`` says how a question is answered, ``app`` is the parts list.
"""
