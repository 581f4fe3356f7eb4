"""Owning shards and carrying plans out: attempts to WORK, ends to EVENTS; settled work that is asked again."""
