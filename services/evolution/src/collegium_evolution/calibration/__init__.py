"""Calibration: confidence that is learned from what became of answers, and published for those who state it.

Rooms: ``cases`` (what a settled message teaches, pure), ``store`` (its tables), ``rounds`` (when it is fitted anew and
published). The arithmetic is the library's (``collegium_learning.confidence``). One rule: what is kept of an answer is
who agreed with whom and what became of it, never what anybody said.
"""
