"""The bundle format: manifest, files, sessions, catalogue, trust."""
