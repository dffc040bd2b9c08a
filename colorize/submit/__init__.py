"""Commands of this program as Ray jobs: packed, submitted, followed, stopped."""
