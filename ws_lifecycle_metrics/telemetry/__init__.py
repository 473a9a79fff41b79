"""How the numbers leave the process; one sink a file."""
