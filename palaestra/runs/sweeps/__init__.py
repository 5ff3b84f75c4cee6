"""Several runs of one experiment side by side."""
