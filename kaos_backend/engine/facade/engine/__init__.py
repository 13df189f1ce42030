"""The engine's own service, for what pachd's protocol lacks."""
