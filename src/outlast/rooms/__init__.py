"""The rooms: what people do with a node. They are blind to each other and meet only on the log."""
