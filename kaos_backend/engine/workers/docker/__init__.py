"""Workers that are containers of a Docker engine, and the builder of their images."""
