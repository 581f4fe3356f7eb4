"""Probing: which settled work is asked again, of whom, and for how much. Pure.

Rooms: ``sampling`` (which tasks, by their ids alone; what becomes of one when its time has come) and ``allowance`` (the
bound on what it costs). The service that dispatches work applies them; who learns from what comes back does not choose.
"""

from collegium_learning.probing.allowance import Allowance
from collegium_learning.probing.sampling import asked_of, can_be_probed, drawn, held_out_of, is_drawn, probe_of

__all__ = ["Allowance", "asked_of", "can_be_probed", "drawn", "held_out_of", "is_drawn", "probe_of"]
