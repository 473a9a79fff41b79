"""What each framework knows of a connection; one framework a file, imported by nobody else."""
