"""Schedules: commands that are due by the clock, each due time run once, as Ray jobs."""
