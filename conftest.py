"""What tests share: servers, seeded randomness, how property tests search, which tests wait, and which run together."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from collegium_testing.folders import make_in_memory
from collegium_testing.spreading import Spreading, together
from hypothesis import HealthCheck, settings

pytest_plugins = ["collegium_testing.fixtures"]

# Derandomized: the same code has the same result on every machine. Without a deadline: a shared machine's pauses
# are not the property's. Without a database of examples: workers would write to one folder.
settings.register_profile(
    "collegium", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", parent=settings.get_profile("collegium"), derandomize=False, max_examples=2000)
settings.load_profile("collegium")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Lets tests write into memory; worker processes get their folders from the one that spreads the tests."""
    if config.option.basetemp is None and not hasattr(config, "workerinput") and (folder := make_in_memory()):
        config.option.basetemp = str(folder)
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Verbs that a test runs in this process set up logging: their level is not to hide what later tests look for."""
    before = structlog.get_config() if structlog.is_configured() else None
    yield
    if before is not None:
        structlog.configure(**before)
    else:
        structlog.reset_defaults()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts tests of one platform side by side, and leaves those that take long to those who ask for them."""
    items[:] = together(items, config.rootpath)
    if os.environ.get("COLLEGIUM_TESTS") == "long" or os.environ.get("COLLEGIUM_CHAOS") == "full":
        return
    long = [item for item in items if item.get_closest_marker("long") is not None]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in set(long)]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Spreading | None:
    """Keeps tests of one platform on one worker where whole files are given out."""
    return Spreading(config, log) if config.getvalue("dist") == "loadfile" else None
