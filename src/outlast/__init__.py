"""Outlast: keeps people connected when a state cuts the internet."""

__version__ = "0.1.0"
