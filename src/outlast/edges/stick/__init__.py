"""Sticks: removable media that are found by themselves, the bundles on them, and taking them out."""
