"""Billing: what every call cost and every task is charged, the archive of EVENTS, tenants and their keys.

Pure rooms: ``booking`` (events → rows), ``usage`` (rows → figures), ``keys`` (making, hashing and describing keys).
Around them: ``store`` (all SQL), ``fold`` (events in), ``directory`` (tenants and keys, published to the gateways),
``handlers`` (questions in), ``app`` (the parts list).
"""
