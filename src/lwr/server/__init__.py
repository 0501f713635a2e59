"""The service: what is stored, who moves it, and the ways in."""
