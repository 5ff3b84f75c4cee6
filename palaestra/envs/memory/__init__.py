"""Tasks that cannot be done without memory, with exact figures for those who have none."""
