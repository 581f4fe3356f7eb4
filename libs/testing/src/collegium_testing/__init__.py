"""What the tests of every package share: stand-ins that behave like the real part, waiting, and time.

Here: the names a test reaches for most. `collegium_testing.otlp` (the trace receiver) and
`collegium_testing.fixtures` (servers for pytest) are imported by their own path, because what they need is
heavy. Not here: anything a service needs to run.

The one rule: a test waits for a condition with a deadline; it never sleeps.
"""

from collegium_testing.clock import VirtualClock
from collegium_testing.eventually import eventually, eventually_sync
from collegium_testing.simulator import Behaviour, ModelSimulator, Recording, Rule
from collegium_testing.webhooks import WebhookReceiver

__all__ = [
    "Behaviour",
    "ModelSimulator",
    "Recording",
    "Rule",
    "VirtualClock",
    "WebhookReceiver",
    "eventually",
    "eventually_sync",
]
