"""Where files lie: folders on a disk and in buckets, behind one set of verbs. Knows nothing of pictures, runs or Ray."""
