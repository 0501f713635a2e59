"""Tests of the commands, run as people run them: as processes, against a real server."""
