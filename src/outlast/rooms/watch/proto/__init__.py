"""Formats, rules and machines of watch, each file named after its standard or its question; all pure."""
