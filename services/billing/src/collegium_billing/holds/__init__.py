"""Holds: what may be spent, decided before it is spent, by one owner a shard."""
