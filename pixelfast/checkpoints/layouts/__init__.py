"""Checkpoint layouts of other projects."""
