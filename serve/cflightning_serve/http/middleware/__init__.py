"""ASGI middleware around the routes, one concern each; ``app`` puts it in order."""
