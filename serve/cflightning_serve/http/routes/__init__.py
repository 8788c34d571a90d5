"""Routes: the JSON routes and the Open Inference Protocol."""
