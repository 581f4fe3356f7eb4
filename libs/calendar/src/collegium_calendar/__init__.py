"""When something is to happen: cron expressions, daily windows, missed firings. Pure, without a clock of its own.

Times are Unix milliseconds; what a wall clock shows is worked out in a time zone by name, daylight saving included.
"""
