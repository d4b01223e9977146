"""The encrypted door for phones: the node's own authority, which phones install, and the name that it is for."""
