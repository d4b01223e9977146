"""Where reach touches sockets, files, clocks and child processes; what can be decided without them is in ``proto``."""
