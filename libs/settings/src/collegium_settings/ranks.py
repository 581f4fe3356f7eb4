"""The section of ranks: how sure a promotion or demotion has to be.

One rule: what is promised of false promotions holds for the defaults and for anything stricter.
"""

from __future__ import annotations

from typing import Annotated

from collegium_settings.scalars import Flag, number
from collegium_settings.section import Section


class RankSettings(Section, frozen=True, kw_only=True):
    """When models change ranks by themselves (``automatic``; if not, rounds only say what they would do).

    ``odds`` to one are asked for a change, ``false_share`` bounds the wrong ones among many at once. A model is as good
    as another where it loses at most ``margin`` more of all pairs than it wins, and cheaper where it costs at most
    ``price_ratio`` of it.
    """

    automatic: Flag = True
    odds: Annotated[float, number(20, 1e6)] = 60.0
    false_share: Annotated[float, number(0.001, 0.5)] = 0.05
    margin: Annotated[float, number(0.005, 0.3)] = 0.05
    price_ratio: Annotated[float, number(0.01, 1)] = 0.9
