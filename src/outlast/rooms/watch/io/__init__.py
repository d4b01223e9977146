"""Where watch touches files, sockets and clocks; everything that can be decided without them is in ``proto``."""
