"""Evolution: what every model did, which rank that earns it, and what is learned from it beside the work.

``fold`` takes events in, once each. The rooms: ``scoreboards`` (what models did), ``ranks`` (what that earns them),
``gaps`` (where all of them are not good enough), ``calibration`` (how sure to be of answers) and ``cycles`` (the rounds
that put it together). Around them:
``answers`` (what others ask), ``telling`` (what operators are told) and ``app`` (the parts list). No task waits for
anything here.
"""
