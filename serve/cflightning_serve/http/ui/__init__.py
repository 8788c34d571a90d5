"""The web page at ``/``: its files in ``static``, and the routes for its catalogue, title search and map."""
