"""A bundle in the layout that a platform wants: each is made from a finished bundle, by a file of its own."""
