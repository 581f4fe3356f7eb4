"""Confidence: how probably an answer is right, learned from answers of which it is known. Pure."""

from collegium_learning.confidence.calibration import UNCALIBRATED, Calibration, Features, confidence

__all__ = ["UNCALIBRATED", "Calibration", "Features", "confidence"]
