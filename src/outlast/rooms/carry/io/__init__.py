"""Where carry touches files and processes: what waits to be sent, and pictures that are made anew."""
