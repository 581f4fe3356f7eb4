"""Answers that are given again: kept, found by their key or because they are alike, counted."""
