"""Rescue: the smallest part of a failing network that has to be kept in a higher precision."""
