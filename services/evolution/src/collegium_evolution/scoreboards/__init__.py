"""Scoreboards: what every model did in every domain, for operators and for each tenant.

Pure: ``scoring`` (events → what they add), ``judging`` (words of feedback, of which the last counts), ``histogram``
(durations in few numbers) and ``windows`` (sums by the hour). Around them: ``store`` (the sums of all time, which
routers and gateways read), ``window_store`` (the sums by hour and tenant), ``publishing`` (the bucket ``policy``) and
``looking`` (scores as of now, with decay and drift). One rule: an event is added once, to all of them or to none.
"""
