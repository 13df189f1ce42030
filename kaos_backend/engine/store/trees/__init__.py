"""File trees over objects: reading, changing, globbing, and the way from and to real directories."""
