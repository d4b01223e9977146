"""Formats, rules and machines of reach, each file named after its standard or its question; all pure."""
