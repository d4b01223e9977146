"""Watch for researchers, in Python: what the commands say of files, as arrays and values. docs/howto/research.md

What is here needs nothing beyond the program. Archives (``research.archive``, ``research.expressions``) need its extra:
``pip install 'outlast[research]'``.
"""

from outlast.rooms.watch.research.readers import (
    classify_file,
    costs,
    detect,
    mrt_counts,
    read_series,
)

__all__ = ["classify_file", "costs", "detect", "mrt_counts", "read_series"]
