"""Replaying a recorded pool through a running platform: the pool's prices and ranks, the platform, the asking, figures.

Rooms: ``pricing`` (who costs what and ranks where), ``platform`` (a platform of its own), ``asking`` (sends rows, tells
what answers were worth, lets the platform learn), ``figures`` and ``curve`` (what is printed). One rule: everything is
asked through the doors that clients have, and costs are those that billing booked.
"""
