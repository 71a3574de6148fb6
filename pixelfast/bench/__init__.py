"""Measuring: the machine's limits, a model's lower bound of time on it, naive sampling, and pixelfast's."""
