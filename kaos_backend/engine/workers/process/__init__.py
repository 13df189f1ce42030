"""Workers that are processes of this machine: the runtime, and the builder that needs no container."""
