"""What every test of the repository shares: servers, seeded randomness, and how property tests search."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["collegium_testing.fixtures"]

# Derandomized: the same code has the same result on every machine. Without a deadline: a shared machine's pauses
# are not the property's. Without a database of examples: workers would write to one folder.
settings.register_profile(
    "collegium", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", parent=settings.get_profile("collegium"), derandomize=False, max_examples=2000)
settings.load_profile("collegium")
