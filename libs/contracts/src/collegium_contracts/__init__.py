"""The contracts of Collegium: messages, subjects, streams, the journey and the error catalogue.

Depends on msgspec alone. Services and libs import the modules by name; there is no behaviour here beyond encoding,
naming and exact arithmetic on money.
"""
