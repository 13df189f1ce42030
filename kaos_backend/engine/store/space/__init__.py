"""Space that comes back: what nothing refers to is removed, and what it lay in is closed up."""
