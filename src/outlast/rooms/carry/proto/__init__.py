"""Formats of media, each file named after its standard; all pure. They find what a file tells beside what one sees."""
