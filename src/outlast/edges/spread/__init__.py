"""Spread: a node hands its own program on to a neighbour who has no internet, and an installed one is renewed.

What is handed on is a *set*: ``manifest.json`` with what belongs to a release, ``manifest.sig`` with signatures of its
keys, ``install.py``, ``requirements.lock`` and ``wheels/``. docs/spec/release.md has the formats.
"""
