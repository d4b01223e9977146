"""The program's borders: the command line, the local API, the pages, and the process that holds them."""
