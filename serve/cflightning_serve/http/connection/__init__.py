"""HTTP/1.1 connections: parsing, limits, and the exchange of each request and response with the ASGI application."""
