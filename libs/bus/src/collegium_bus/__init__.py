"""The bus: everything between a service and the broker.

Connection and publishing (connection, publisher, direct, claims), consuming (pull, work, events, ordered, delivery),
shared state (kv, leases), declarations (topology), dead letters (dead) and questions (ask). Subjects and messages are
the contracts'; what is done with a message is the service's.
"""
