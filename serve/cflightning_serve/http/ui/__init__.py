"""The page at ``/``: its routes, item catalogue, title search and map."""
