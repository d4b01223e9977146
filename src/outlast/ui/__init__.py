"""What the pages and the command line of all rooms share."""
