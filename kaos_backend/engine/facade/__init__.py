"""pachd's gRPC protocol over the engine: translation and error mapping, nothing more."""
