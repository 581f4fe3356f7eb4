"""Models that were added while the platform runs: where they are, and what their endpoints can do.

``book`` follows the bucket of added models, ``checks`` says what a probe asks and expects, ``probing`` asks it by real
calls and books them, ``answers`` is who routers ask. One rule: a key is found by its name in this worker's own
configuration, and sent to no host but those that stand beside it there.
"""
