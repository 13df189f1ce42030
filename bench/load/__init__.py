"""Many people at one shared backend at once."""
