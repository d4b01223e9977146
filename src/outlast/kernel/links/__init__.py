"""Carriers: one file for each, bytes in and bytes out."""
