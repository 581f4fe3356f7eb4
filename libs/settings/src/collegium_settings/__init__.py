"""Collegium's configuration: one YAML file, environment over it, validated before anything connects.

Here: the sections and their defaults, reading, checking, masking. Not here: what a service does with a value. One
rule: settings are frozen and complete when ``load`` returns, or it raises with every problem at once.
"""

from collegium_settings.checks import EMBEDDED_MODEL_NAME
from collegium_settings.errors import Problem, SettingsError
from collegium_settings.load import effective, load
from collegium_settings.models import MarkupSettings, ModelSettings, PriceSettings, Rank
from collegium_settings.secret import Secret, mask_text
from collegium_settings.settings import Settings, TenantSettings, TierSettings

__all__ = [
    "EMBEDDED_MODEL_NAME",
    "MarkupSettings",
    "ModelSettings",
    "PriceSettings",
    "Problem",
    "Rank",
    "Secret",
    "Settings",
    "SettingsError",
    "TenantSettings",
    "TierSettings",
    "effective",
    "load",
    "mask_text",
]
