"""Every operator behind one interface, and whether it is right on this machine."""
