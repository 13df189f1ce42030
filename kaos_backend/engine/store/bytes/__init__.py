"""Objects: sequences of bytes named by their hash, and how they become durable."""
